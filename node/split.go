package node

import "github.com/lockstep-storage/lockstep/mirror"

// splitBrains says what is known of the split-brains that a volume is in.
func (n *Node) splitBrains(name string) ([]mirror.SplitReport, error) {
	h, err := n.findOpen(name)
	if err != nil {
		return nil, err
	}
	return h.volume.SplitBrains()
}
