// Package crash kills daemons under load, again and again, and looks whether
// anything that was promised is missing (promises P1 and P2): every
// acknowledged write readable, no write torn, both replicas equal byte for byte
// once the dead node is back. A daemon whose volume has no peer is killed as well, one in
// the middle of a snapshot or of a rollback to it, and
// three that mirror one volume, in each order of death and return.
// It consists of tests alone.
package crash
