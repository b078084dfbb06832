//go:build !linux

package probe

import (
	"context"
	"errors"
	"io"
)

// run refuses: commands cannot be confined here.
func (s *keepers) run(context.Context, Check) ending {
	return ending{Trouble: "commands run on Linux only"}
}

func (s *keepers) close() {}

// KeeperMain refuses: commands cannot be confined here.
func KeeperMain(io.Reader, io.Writer) error { return errors.New("commands run on Linux only") }
