package node

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/lockstep-storage/lockstep/mirror"
	"github.com/lockstep-storage/lockstep/target"
)

// images are what is exported read-only, by export: replicas that are not Primary,
// and snapshots.
type images struct {
	mu       sync.Mutex
	byExport map[string]*mirror.Image
	wg       sync.WaitGroup // one for each, until its export is gone
}

// imageExport is the name of a replica's read-only export. No volume's name has an @.
func imageExport(volume, node string) string { return volume + "@" + node }

// snapshotExport is the name of a snapshot's.
func snapshotExport(volume, node, snapshot string) string {
	return imageExport(volume, node) + "@" + snapshot
}

// export exports a Secondary read-only, until something changes it.
func (n *Node) export(ctx context.Context, name string, r ExportRequest) (VolumeStatus, error) {
	if !r.ReadOnly {
		return VolumeStatus{}, refuse(CodeBadRequest, "volume %q is exported by being Primary (`lockstep promote %s`); what is exported besides is read-only, and has to be asked for as that", name, name)
	}
	return n.change(name, func(v volume) error {
		image, err := v.OpenImage(ctx)
		if err != nil {
			return refuse(CodeRefused, "%v", err)
		}
		return n.addImage(ctx, target.Export{
			Name: imageExport(name, n.cfg.Node), Device: image,
			Description: fmt.Sprintf("volume %s as node %s holds it, read-only", name, n.cfg.Node),
		}, image)
	})
}

// addImage exports an image until it is over.
func (n *Node) addImage(ctx context.Context, e target.Export, image *mirror.Image) (err error) {
	x := &n.images
	x.mu.Lock()
	defer x.mu.Unlock()
	if old := x.byExport[e.Name]; old != nil { // it is over
		err = n.removeImage(ctx, e.Name, old)
	}
	if err == nil {
		err = n.exports.Add(e)
	}
	if err != nil {
		image.Close()
		return fmt.Errorf("export %s read-only: %w", e.Name, err)
	}
	if x.byExport == nil {
		x.byExport = map[string]*mirror.Image{}
	}
	x.byExport[e.Name] = image
	x.wg.Go(func() {
		<-image.Ended()
		x.mu.Lock()
		defer x.mu.Unlock()
		if err := n.removeImage(context.Background(), e.Name, image); err != nil {
			n.log.Error("a read-only export that is over can't be removed", "export", e.Name, "error", err)
		}
	})
	n.log.Info("exported read-only", "export", e.Name)
	return nil
}

// removeImage takes the export of an image away, unless that was done. n.images.mu
// is held.
func (n *Node) removeImage(ctx context.Context, export string, image *mirror.Image) error {
	if n.images.byExport[export] != image {
		return nil
	}
	delete(n.images.byExport, export)
	err := n.exports.Remove(ctx, export)
	if errors.Is(err, target.ErrUnknownExport) {
		return nil
	}
	return err
}

// unexport ends a read-only export, and with it its clients' connections.
func (n *Node) unexport(ctx context.Context, name string) (VolumeStatus, error) {
	return n.change(name, func(volume) error {
		return n.endImage(ctx, imageExport(name, n.cfg.Node), fmt.Sprintf("volume %q", name))
	})
}

// endImage ends a read-only export of what, for people.
func (n *Node) endImage(ctx context.Context, export, what string) error {
	x := &n.images
	x.mu.Lock()
	defer x.mu.Unlock()
	image := x.byExport[export]
	if image == nil {
		return refuse(CodeRefused, "%s is not exported read-only", what)
	}
	image.Close()
	return n.removeImage(ctx, export, image)
}
