package node

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/lockstep-storage/lockstep/mirror"
	"github.com/lockstep-storage/lockstep/target"
)

// images are the replicas that are exported read-only though they are not
// Primary, by volume.
type images struct {
	mu     sync.Mutex
	byName map[string]*mirror.Image
	wg     sync.WaitGroup // one for each, until its export is gone
}

// imageExport is the name of such an export. No volume's name has an @.
func imageExport(volume, node string) string { return volume + "@" + node }

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
		x := &n.images
		x.mu.Lock()
		defer x.mu.Unlock()
		if old := x.byName[name]; old != nil { // it is over
			err = n.removeImage(ctx, name, old)
		}
		if err == nil {
			err = n.exports.Add(target.Export{
				Name: imageExport(name, n.cfg.Node), Device: image,
				Description: fmt.Sprintf("volume %s as node %s holds it, read-only", name, n.cfg.Node),
			})
		}
		if err != nil {
			image.Close()
			return fmt.Errorf("export volume %q read-only: %w", name, err)
		}
		if x.byName == nil {
			x.byName = map[string]*mirror.Image{}
		}
		x.byName[name] = image
		x.wg.Go(func() {
			<-image.Ended()
			x.mu.Lock()
			defer x.mu.Unlock()
			if err := n.removeImage(context.Background(), name, image); err != nil {
				n.log.Error("a read-only export that is over can't be removed", "volume", name, "error", err)
			}
		})
		n.log.Info("volume exported read-only", "volume", name, "export", imageExport(name, n.cfg.Node))
		return nil
	})
}

// removeImage takes the export of an image away, unless that was done. n.images.mu
// is held.
func (n *Node) removeImage(ctx context.Context, name string, image *mirror.Image) error {
	if n.images.byName[name] != image {
		return nil
	}
	delete(n.images.byName, name)
	err := n.exports.Remove(ctx, imageExport(name, n.cfg.Node))
	if errors.Is(err, target.ErrUnknownExport) {
		return nil
	}
	return err
}

// unexport ends a read-only export, and with it its clients' connections.
func (n *Node) unexport(ctx context.Context, name string) (VolumeStatus, error) {
	return n.change(name, func(volume) error {
		x := &n.images
		x.mu.Lock()
		defer x.mu.Unlock()
		image := x.byName[name]
		if image == nil {
			return refuse(CodeRefused, "volume %q is not exported read-only", name)
		}
		image.Close()
		return n.removeImage(ctx, name, image)
	})
}
