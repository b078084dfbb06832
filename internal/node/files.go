package node

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/pharos-lb/pharos/forward/l7"
)

// CheckFiles reads the files that http listeners and the transports of their services name, as a start does. absent are errors of
// those that are not here, or may not be read by this user: a configuration is often looked at on another machine than
// its nodes. wrong are those of files that are here and of no use.
func (s *Setup) CheckFiles() (absent, wrong []error) {
	told := make(map[string]bool) // several listeners may name the same
	for i := range s.Config.Listeners {
		l := &s.Config.Listeners[i]
		if l.HTTP == nil {
			continue
		}
		listener := httpListener(l.HTTP)
		listener.TLS = s.tls(l.TLS)
		listener.Transports = s.transports(s.Config.Served(l))
		for _, err := range l7.CheckFiles(&listener) {
			if told[err.Error()] {
				continue
			}
			told[err.Error()] = true
			place := fmt.Errorf("listeners[%d]: %w", i, err)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
				absent = append(absent, place)
			} else {
				wrong = append(wrong, place)
			}
		}
	}
	return absent, wrong
}
