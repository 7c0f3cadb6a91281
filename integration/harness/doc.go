// Package harness is what the integration tests share: two nodes that mirror
// one volume ([Pair]), the programs that a test needs ([NeedTools]), its seed
// ([Seed]) and network namespaces ([Network]).
//
// A test that lacks a program skips and says which; with
// LOCKSTEP_REQUIRE_TOOLS=1, as in `make test`, it fails instead, so that nothing
// goes untested unnoticed.
package harness
