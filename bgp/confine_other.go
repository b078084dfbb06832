//go:build !linux

package bgp

import "log/slog"

// confine does nothing: only Linux has what it takes.
func confine(*slog.Logger) {}
