module github.com/lockstep-storage/lockstep/adapters

go 1.26.0

require (
	github.com/gostor/gotgt v0.2.2
	github.com/lockstep-storage/lockstep v0.0.0
	github.com/pojntfx/go-nbd v0.3.2
)

require (
	github.com/mitchellh/go-homedir v1.1.0 // indirect
	github.com/satori/go.uuid v1.2.0 // indirect
	github.com/sirupsen/logrus v1.9.0 // indirect
	github.com/tidwall/btree v1.8.2 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/lockstep-storage/lockstep => ../
