package node

import "github.com/lockstep-storage/lockstep/mirror"

// hooks are what a volume calls here.
func (n *Node) hooks(string) mirror.Hooks {
	return mirror.Hooks{Event: n.happened}
}

func (n *Node) happened(e mirror.Event) {
	if e.Kind == mirror.EventResync {
		n.orderResyncs()
	}
}
