// Package peer starts the servers that ours are measured beside.
package peer
