// Package badinput throws at a running pair what no client and no peer should
// send (promise P7): it may answer with an error or close the connection, its
// memory stays bounded, it serves on, and its replicas stay what they were. And
// it damages what lies on disk, which the daemon must refuse in words, changing
// nothing. It consists of tests alone.
package badinput
