// Package targettest holds what any block.Device must pass. A package that
// implements one calls [Run] from a test of its own:
//
//	func TestDevice(t *testing.T) {
//		targettest.Run(t, func(t *testing.T) block.Device { return newDevice(t) })
//	}
//
// The suite takes package block's comments at their word and asks for nothing
// that is not written there.
package targettest
