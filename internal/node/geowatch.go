package node

import (
	"context"
	"io/fs"
	"maps"
	"os"
	"syscall"
	"time"

	"github.com/pharos-lb/pharos/geo"
	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/steer"
)

// geoPoll is how often the geo files are looked at. Polling sees what
// inotify does not: a folder that is replaced, a network file system.
const geoPoll = 5 * time.Second

// A stamp tells whether a file was replaced; the zero stamp is a missing file.
type stamp struct {
	size  int64
	mtime time.Time
	inode uint64
}

// stampsOf looks at the files; taken before they are read, so that a
// replacement while reading is noticed afterwards.
func stampsOf(files []string) map[string]stamp {
	out := make(map[string]stamp, len(files))
	for _, file := range files {
		if info, err := os.Stat(file); err == nil {
			out[file] = stamp{size: info.Size(), mtime: info.ModTime(), inode: inode(info)}
		}
	}
	return out
}

func inode(info fs.FileInfo) uint64 {
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		return sys.Ino
	}
	return 0
}

// watchGeo takes up a geo database that was replaced and has kept still for one
// poll, so that a file being written is not read half. A file that is gone, or
// that cannot be read, changes nothing: the data in memory stays.
func (n *Node) watchGeo(ctx context.Context) error {
	ticker := time.NewTicker(geoPoll)
	defer ticker.Stop()
	var before, refused map[string]stamp
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		if n.phase.Load() != "serving" {
			continue // what was replaced meanwhile differs from geoStamps later too
		}
		setup := n.setup.Load()
		now := stampsOf(setup.Config.Geo.Databases)
		still := maps.Equal(now, before)
		before = now
		if !still || maps.Equal(now, setup.geoStamps) || maps.Equal(now, refused) || len(now) < len(setup.Config.Geo.Databases) {
			continue
		}
		if err := n.reloadGeo(ctx); err != nil {
			refused = now
			n.log.Error("replaced geo database refused, the old data stays", "error", err)
		}
	}
}

// reloadGeo reads the databases again and leaves the rest of the configuration
// as it is in force, whatever the file says by now.
func (n *Node) reloadGeo(ctx context.Context) (err error) {
	n.reloading.Lock()
	defer n.reloading.Unlock()
	defer func() {
		n.mu.Lock()
		n.geoError = err
		n.mu.Unlock()
	}()
	if err := n.mayReload(); err != nil {
		return err
	}
	defer n.makeRoom()()
	next := *n.setup.Load()
	if err := next.readGeo(); err != nil {
		return err
	}
	if next.Topology, err = steer.Compile(next.Config, next.Geo, next.Self.Node.Name); err != nil {
		return err
	}
	if !n.decider.swap(ctx, &next) {
		return ctx.Err()
	}
	n.setLoaded(&next)
	n.log.Info("geo data replaced", "built", next.Geo.Info().Built.Format(time.DateOnly))
	return nil
}

// readGeo opens the configured data.
func (s *Setup) readGeo() (err error) {
	s.geoStamps = stampsOf(s.Config.Geo.Databases)
	s.Geo, err = openGeo(s.Config.Geo)
	return err
}

func openGeo(g config.Geo) (*geo.Database, error) {
	if len(g.Databases) == 0 {
		return geo.Embedded()
	}
	return geo.Open(readGeoFile, g.Databases...)
}
