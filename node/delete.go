package node

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/lockstep-storage/lockstep/mirror"
	"github.com/lockstep-storage/lockstep/target"
)

// delete removes this node's replica of a volume, and its data. A Primary is
// refused. From the rename on the volume is gone, whatever happens after it.
func (n *Node) delete(ctx context.Context, name string) error {
	if n.stopping.Load() {
		return errStopping
	}
	if !n.making.try() {
		return refuse(CodeBusy, "another volume is being created or deleted: try again")
	}
	defer n.making.give()
	h, err := n.find(name)
	if err != nil {
		return err
	}
	if !h.change.TryLock() {
		return errBusy(name)
	}
	defer h.change.Unlock()
	switch there, err := n.dir.exists(name); {
	case err != nil:
		return err
	case !there:
		return refuse(CodeNotFound, "node %q has no replica of volume %q: only the config file names it", n.cfg.Node, name)
	}
	if err := n.retire(ctx, h); err != nil {
		return err
	}
	if err := n.erase(name); err != nil {
		return fmt.Errorf("delete volume %q: %w", name, err)
	}
	n.volumes.remove(name)
	n.log.Info("volume deleted", "volume", name)
	return nil
}

// retire closes the volume, which drops its clients, and takes the export away.
func (n *Node) retire(ctx context.Context, h *hosted) error {
	if h.volume == nil {
		return nil
	}
	// One that failed serves nobody, and can't be demoted any more.
	if st := h.volume.Status(); st.Role == mirror.Primary && st.Disk != mirror.Failed {
		return refuse(CodeRefused, "volume %q is Primary on node %q: move its clients away and run `lockstep demote %s` first", h.name, n.cfg.Node, h.name)
	}
	err := h.volume.Close(ctx)
	if removeErr := n.exports.Remove(ctx, h.name); !errors.Is(removeErr, target.ErrUnknownExport) {
		err = errors.Join(err, removeErr)
	}
	if err == nil {
		return nil
	}
	// It may be half closed: nothing of it can be trusted to serve again.
	n.volumes.put(&hosted{name: h.name, problem: fmt.Sprintf("volume %q was to be closed, and that failed: %v: restart the daemon, or try again", h.name, err)})
	return fmt.Errorf("close volume %q: %w", h.name, err)
}

func (n *Node) erase(name string) error {
	s, settingsErr := readSettings(n.dir.volume(name))
	gone := n.dir.deleting(name)
	if err := os.RemoveAll(gone); err != nil {
		return err
	}
	if err := os.Rename(n.dir.volume(name), gone); err != nil {
		return err
	}
	if err := n.dir.sync(); err != nil {
		return err
	}
	if settingsErr == nil && s.Store != "" {
		n.eraseStore(s.Store)
	}
	if settingsErr == nil {
		if err := eraseJournal(gone, n.effective(name, s)); err != nil {
			n.log.Warn("a deleted volume's journal can't be removed: remove it by hand", "path", s.Journal, "error", err)
		}
	}
	if err := os.RemoveAll(gone); err != nil {
		n.log.Warn("a deleted volume's directory can't be removed, the next start tries again", "path", gone, "error", err)
	}
	return nil
}

// eraseStore removes a store file outside the volume's directory: create made
// it. Failing to is no reason to keep the volume.
func (n *Node) eraseStore(path string) {
	st, err := os.Lstat(path)
	if err == nil && !st.Mode().IsRegular() {
		n.log.Warn("a deleted volume's store is no regular file, and is left as it is", "path", path)
		return
	}
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil {
		n.log.Warn("a deleted volume's store can't be removed: remove it by hand", "path", path, "error", err)
	}
}
