package mirror

import (
	"slices"
	"strings"
)

// In-sync sets are values: sorted by node, each node at most once, and never
// changed in place, since superblock, history and description share them.

// MaxMembers is the most members of an in-sync set: this replica and eight peers.
const MaxMembers = 9

// setHas reports whether set holds node in this very incarnation.
func setHas(set []Member, m Member) bool {
	i, found := setIndex(set, m.Node)
	return found && set[i].Incarnation == m.Incarnation
}

// setHasNode reports whether set holds node in whatever incarnation.
func setHasNode(set []Member, node string) bool {
	_, found := setIndex(set, node)
	return found
}

// setWith returns set with m, in place of an older incarnation of m's node.
func setWith(set []Member, m Member) []Member {
	i, found := setIndex(set, m.Node)
	if found {
		set = slices.Clone(set)
		set[i] = m
		return set
	}
	return slices.Concat(set[:i], []Member{m}, set[i:])
}

// setWithout returns set without node.
func setWithout(set []Member, node string) []Member {
	i, found := setIndex(set, node)
	if !found {
		return set
	}
	return slices.Concat(set[:i], set[i+1:])
}

func setEqual(a, b []Member) bool { return slices.Equal(a, b) }

func setIndex(set []Member, node string) (int, bool) {
	return slices.BinarySearchFunc(set, node, func(m Member, node string) int {
		return strings.Compare(m.Node, node)
	})
}
