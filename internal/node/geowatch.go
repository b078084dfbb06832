package node

import (
	"context"
	"os"
	"time"
)

// geoPoll is how often the geo files are looked at. Polling sees what
// inotify does not: a folder that is replaced, a network file system.
const geoPoll = 5 * time.Second

// A stamp tells whether a file was replaced.
type stamp struct {
	size  int64
	mtime time.Time
	inode uint64
}

func stampOf(file string) stamp {
	info, err := os.Stat(file)
	if err != nil {
		return stamp{}
	}
	return stamp{size: info.Size(), mtime: info.ModTime(), inode: inode(info)}
}

// watchGeo reloads when a geo database was replaced and has kept still for one
// poll, so that a file being written is not read half. A bad file is refused
// by the reload, and the old data stays.
func (n *Node) watchGeo(ctx context.Context) error {
	ticker := time.NewTicker(geoPoll)
	defer ticker.Stop()
	seen, pending := map[string]stamp{}, map[string]stamp{}
	for {
		setup := n.setup.Load()
		replaced := false
		for _, file := range setup.Config.Geo.Databases {
			now := stampOf(file)
			old, known := seen[file]
			switch {
			case !known:
				seen[file] = now
			case now == old || now == (stamp{}):
				delete(pending, file)
			case pending[file] == now:
				seen[file], replaced = now, true
				delete(pending, file)
			default:
				pending[file] = now
			}
		}
		if replaced {
			n.log.Info("geo database replaced, reloading")
			n.Reload(ctx, false) // Reload logs it and keeps it for status
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}
