// Package formats holds docs/formats.md against the bytes: the tables in it are
// read, and the vectors in the packages' testdata, one for each version of each
// format, are decoded by them and by nothing else.
package formats
