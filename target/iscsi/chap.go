package iscsi

import (
	"crypto/md5"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"

	"github.com/lockstep-storage/lockstep/target/iscsi/internal/wire"
)

// chapHashes are the algorithms (12.1.3; numbers by IANA), of which the
// initiator's first is taken.
var chapHashes = map[string]func() hash.Hash{
	"5": md5.New,
	"6": sha1.New,
	"7": sha256.New,
}

// challengeSize is the length of a challenge, bytes: none is ever met twice.
const challengeSize = 32

// maxChallenge is the longest challenge of an initiator, bytes (12.1.3).
const maxChallenge = 1024

// chap is the authentication of one login (12.1.3).
type chap struct {
	who       *Initiator
	hash      func() hash.Hash
	id        byte
	challenge []byte
}

var errCHAP = errors.New("CHAP failed")

// begin chooses the algorithm and makes a challenge.
func (a *chap) begin(algorithms string) ([]wire.Pair, error) {
	for alg := range strings.SplitSeq(algorithms, ",") {
		h, ok := chapHashes[alg]
		if !ok {
			continue
		}
		a.hash = h
		b := make([]byte, challengeSize+1)
		rand.Read(b)
		a.id, a.challenge = b[0], b[1:]
		return []wire.Pair{
			{Key: "CHAP_A", Value: alg},
			{Key: "CHAP_I", Value: strconv.Itoa(int(a.id))},
			{Key: "CHAP_C", Value: "0x" + hex.EncodeToString(a.challenge)},
		}, nil
	}
	return nil, fmt.Errorf("%w: none of the algorithms %.40q is supported (5 MD5, 6 SHA-1, 7 SHA-256)", errCHAP, algorithms)
}

// check judges the initiator's answer, and answers its challenge if it sent one.
func (a *chap) check(keys map[string]string) ([]wire.Pair, error) {
	got, err := parseBinary(keys["CHAP_R"], 64)
	if err != nil {
		return nil, fmt.Errorf("%w: CHAP_R: %v", errCHAP, err)
	}
	want := a.response(a.id, a.who.CHAP.Secret, a.challenge)
	// Both are compared whatever the first says: how long it takes tells nothing.
	if subtle.ConstantTimeCompare(got, want)&subtle.ConstantTimeCompare([]byte(keys["CHAP_N"]), []byte(a.who.CHAP.Name)) != 1 {
		return nil, fmt.Errorf("%w: the name or the secret is wrong", errCHAP)
	}
	c, mutual := keys["CHAP_C"]
	if !mutual {
		return nil, nil
	}
	if a.who.Mutual == nil {
		return nil, fmt.Errorf("%w: the initiator wants the target to authenticate itself, which has no secret for that", errCHAP)
	}
	challenge, err := parseBinary(c, maxChallenge)
	if err != nil {
		return nil, fmt.Errorf("%w: CHAP_C: %v", errCHAP, err)
	}
	id, err := parseNumber(keys["CHAP_I"])
	if err != nil || id > 255 {
		return nil, fmt.Errorf("%w: CHAP_I is %.20q", errCHAP, keys["CHAP_I"])
	}
	if subtle.ConstantTimeCompare(challenge, a.challenge) == 1 {
		return nil, fmt.Errorf("%w: the initiator sent our own challenge back", errCHAP)
	}
	r := a.response(byte(id), a.who.Mutual.Secret, challenge)
	return []wire.Pair{
		{Key: "CHAP_N", Value: a.who.Mutual.Name},
		{Key: "CHAP_R", Value: "0x" + hex.EncodeToString(r)},
	}, nil
}

func (a *chap) response(id byte, secret string, challenge []byte) []byte {
	h := a.hash()
	h.Write([]byte{id})
	h.Write([]byte(secret))
	h.Write(challenge)
	return h.Sum(nil)
}

// parseBinary reads a binary value in hexadecimal or base64 (6.1).
func parseBinary(s string, most int) ([]byte, error) {
	var b []byte
	var err error
	switch {
	case len(s) > 2*most+2:
		return nil, fmt.Errorf("%d characters are too many", len(s))
	case strings.HasPrefix(s, "0x"), strings.HasPrefix(s, "0X"):
		h := s[2:]
		if len(h)%2 == 1 {
			h = "0" + h
		}
		b, err = hex.DecodeString(h)
	case strings.HasPrefix(s, "0b"), strings.HasPrefix(s, "0B"):
		b, err = base64.StdEncoding.DecodeString(s[2:])
	default:
		return nil, errors.New("neither hexadecimal nor base64")
	}
	switch {
	case err != nil:
		return nil, errors.New("neither hexadecimal nor base64")
	case len(b) == 0 || len(b) > most:
		return nil, fmt.Errorf("%d bytes, 1 to %d are possible", len(b), most)
	}
	return b, nil
}
