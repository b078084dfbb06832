package l7

import (
	"github.com/pharos-lb/pharos/forward/l7/cert"
)

// CheckFiles reads the files that a listener names (certificates with their keys, authorities, revocation lists, error pages) as
// New does, and returns what is wrong, one error for each. It keeps nothing open.
func CheckFiles(l *Listener) (wrong []error) {
	add := func(err error) {
		if err != nil {
			wrong = append(wrong, err)
		}
	}
	if l.TLS != nil {
		for _, f := range l.TLS.Certificates {
			_, err := cert.Open([]cert.File{f}, nil)
			add(err)
		}
		if l.TLS.Clients != nil {
			_, err := cert.OpenClients(*l.TLS.Clients)
			add(err)
		}
	}
	for _, t := range l.Transports {
		if t.TLS() {
			_, err := cert.OpenBackends(filesOf(t))
			add(err)
		}
	}
	for i := range l.Pages {
		_, err := readPages(l.Pages[i : i+1])
		add(err)
	}
	for i := range l.Routes {
		if x, _ := l.Routes[i].Extra.(*Extra); x != nil {
			for k := range x.Pages {
				_, err := readPages(x.Pages[k : k+1])
				add(err)
			}
		}
	}
	return wrong
}
