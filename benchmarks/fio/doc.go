// Package fio runs fio's NBD engine, as the benchmarks do, and reads its report.
package fio
