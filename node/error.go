package node

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/lockstep-storage/lockstep/mirror"
)

// A Code is an admin error's kind, for programs.
type Code string

const (
	CodeBadRequest Code = "bad-request"      // 400: the request itself is wrong
	CodeNotFound   Code = "not-found"        // 404: no such volume, peer or path
	CodeTooLarge   Code = "too-large"        // 413
	CodeExists     Code = "exists"           // 409: the volume is there already
	CodeBusy       Code = "busy"             // 409: another change is under way
	CodeRefused    Code = "refused"          // 409: not in this state
	CodeUnsafe     Code = "unsafe-promotion" // 409: Unknown says why; force overrides
	CodeRepair     Code = "unsafe-repair"    // 409: Unknown says what may be lost; force overrides
	CodeStopping   Code = "stopping"         // 503: the daemon is shutting down
	CodeFailed     Code = "failed"           // 500: it was tried and went wrong
)

var httpStatus = map[Code]int{
	CodeBadRequest: http.StatusBadRequest,
	CodeNotFound:   http.StatusNotFound,
	CodeTooLarge:   http.StatusRequestEntityTooLarge,
	CodeExists:     http.StatusConflict,
	CodeBusy:       http.StatusConflict,
	CodeRefused:    http.StatusConflict,
	CodeUnsafe:     http.StatusConflict,
	CodeRepair:     http.StatusConflict,
	CodeStopping:   http.StatusServiceUnavailable,
	CodeFailed:     http.StatusInternalServerError,
}

// Error is what the admin API answers a request that it does not grant: the
// JSON object {"error": sentence, "code": code}.
type Error struct {
	Text string `json:"error"`
	Code Code   `json:"code"`
	// Unknown lists, for CodeUnsafe, what is not known that a safe promotion
	// needs to know, and for CodeRepair what a forced repair may lose.
	Unknown []string `json:"unknown,omitempty"`
}

func (e *Error) Error() string { return e.Text }

func refuse(code Code, format string, a ...any) *Error {
	return &Error{Text: fmt.Sprintf(format, a...), Code: code}
}

// asError finds the Error in err, or makes one of it.
func asError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if u, ok := errors.AsType[*mirror.UnsafePromotionError](err); ok {
		if u.Hopeless {
			return refuse(CodeRefused, "%v", err)
		}
		return &Error{Text: err.Error(), Code: CodeUnsafe, Unknown: u.Unknown}
	}
	if _, ok := errors.AsType[*mirror.RollbackRefusedError](err); ok {
		return refuse(CodeRefused, "%v", err)
	}
	if r, ok := errors.AsType[*mirror.RepairRefusedError](err); ok {
		if r.Hopeless {
			return refuse(CodeRefused, "%v", err)
		}
		return &Error{Text: err.Error(), Code: CodeRepair, Unknown: r.Plan.Loses}
	}
	if _, ok := errors.AsType[*mirror.ResolveRefusedError](err); ok {
		return refuse(CodeRefused, "%v", err)
	}
	return refuse(CodeFailed, "%v", err)
}
