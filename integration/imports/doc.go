// Package imports holds the picture of docs/architecture.md section 3 against
// what the code really imports: strictly downwards, mirror without a thought of
// NBD, target without a thought of mirroring. It consists of tests alone.
package imports
