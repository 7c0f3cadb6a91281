package mirror_test

import (
	"fmt"

	"github.com/lockstep-storage/lockstep/mirror"
)

// Node a died with five records that b never got; b was promoted and went on.
// When a comes back, what only it has was acknowledged to nobody.
func ExampleCompare() {
	pair := []mirror.Member{{Node: "a", Incarnation: 1}, {Node: "b", Incarnation: 1}}
	first := mirror.Generation{ID: mirror.ID{1}, First: 1, Set: pair}
	second := mirror.Generation{ID: mirror.ID{2}, Parent: mirror.ID{1}, First: 101, Set: pair[1:]}
	a := mirror.Description{
		Node: "a", Incarnation: 1, Volume: mirror.ID{9}, Name: "disk", Size: 1 << 30,
		History: mirror.History{first}, End: 105,
	}
	b := mirror.Description{
		Node: "b", Incarnation: 1, Volume: mirror.ID{9}, Name: "disk", Size: 1 << 30, Role: mirror.Primary,
		History: mirror.History{first, second}, End: 120,
	}
	c := mirror.Compare(a, b)
	fmt.Println(c.Verdict, c.Common, c.Ours.Class, c.Theirs.Class)
	fmt.Println(c.Reason)
	// Output:
	// WeTruncate 100 tentative real
	// a has 5 records after LSN 100, none of which was acknowledged without b, and gives them up
}
