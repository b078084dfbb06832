package l7

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/cert"
)

// tellEvery is how often the log says of one backend that there is no TLS with it.
const tellEvery = time.Minute

// A carrier makes the connections to backends that are more than TCP: it shakes hands, and has
// those of HTTP/2, which many requests share. It is the Server's forward.Carrier.
type carrier struct {
	server *Server

	files atomic.Pointer[fileSet] // of every transport in force, and of a change that is prepared

	mu     sync.Mutex // guards what follows
	peers  map[*forward.Backend]*peers
	told   map[*forward.Backend]time.Time // when the log was last told what is wrong with it
	ended  bool
	reader sync.WaitGroup // one for each connection
}

// A fileSet is what transports name.
type fileSet map[cert.BackendFiles]*cert.Backends

func filesOf(t forward.Transport) cert.BackendFiles {
	return cert.BackendFiles{CA: t.CA, Certificate: t.Certificate, Key: t.Key}
}

func newCarrier(s *Server) *carrier {
	c := &carrier{server: s, peers: make(map[*forward.Backend]*peers), told: make(map[*forward.Backend]time.Time)}
	c.files.Store(&fileSet{})
	return c
}

// read opens what the listeners' transports name, that which is open already included.
func (c *carrier) read(listeners []Listener) (fileSet, error) {
	have, next := *c.files.Load(), make(fileSet)
	var errs []error
	for _, l := range listeners {
		for _, t := range l.Transports {
			f := filesOf(t)
			if _, done := next[f]; done || !t.TLS() {
				continue
			}
			b, err := have[f], error(nil)
			if b == nil {
				b, err = cert.OpenBackends(f)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("l7: listener %s: %w", l.Address, err))
			}
			next[f] = b
		}
	}
	return next, errors.Join(errs...)
}

// and is both sets.
func (s fileSet) and(other fileSet) *fileSet {
	both := make(fileSet, len(s)+len(other))
	for f, b := range s {
		both[f] = b
	}
	for f, b := range other {
		both[f] = b
	}
	return &both
}

// tend swaps files that have changed. Connections that were made by the old ones finish what
// they carry.
func (c *carrier) tend() {
	for f, b := range *c.files.Load() {
		swapped, err := b.Tend()
		if err != nil {
			c.server.metrics.certificates.Add(1)
			c.server.opts.Log.Error("files for backends refused; the old ones go on", "error", err)
		}
		if swapped {
			c.server.registry.Renew(func(t forward.Transport) bool { return t.TLS() && filesOf(t) == f })
			c.server.opts.Log.Info("files for backends swapped", "ca", f.CA, "certificate", f.Certificate)
		}
	}
}

// config makes the TLS configuration of connections to b.
func (c *carrier) config(b *forward.Backend, via *forward.Via) *tls.Config {
	var config *tls.Config
	if via.Fleet {
		config = &tls.Config{ClientSessionCache: tls.NewLRUClientSessionCache(0)}
	} else if files := (*c.files.Load())[filesOf(via.Transport)]; files != nil {
		config = files.Config()
	} else {
		return nil
	}
	config.ServerName = via.Name
	if via.Name == "" {
		config.ServerName = b.Address().Addr().WithZone("").String()
	}
	config.InsecureSkipVerify = via.Insecure || via.Fleet
	if via.Fleet {
		config.VerifyConnection = c.verifyFleet(via.Name)
	}
	config.MinVersion = tls.VersionTLS12
	if via.TLS13 {
		config.MinVersion = tls.VersionTLS13
	}
	config.NextProtos = []string{"http/1.1"}
	if via.Protocol == forward.H2 {
		config.NextProtos = []string{"h2"}
	}
	return config
}

var errUnread = errors.New("what its TLS needs has not been read")

// Secure implements forward.Carrier.
func (c *carrier) Secure(ctx context.Context, b *forward.Backend, via *forward.Via, plain *forward.Stream) (*forward.Stream, error) {
	config, _ := via.Made(func() any { return c.config(b, via) }).(*tls.Config)
	if config == nil {
		_ = plain.Close()
		return nil, errUnread
	}
	stream, conn := forward.Secure(plain, func(below net.Conn) *tls.Conn { return tls.Client(below, config) })
	err := conn.HandshakeContext(ctx)
	if err == nil && via.Protocol == forward.H2 && conn.ConnectionState().NegotiatedProtocol != "h2" {
		err = errors.New(`it does not agree to "h2" (ALPN)`)
	}
	if err != nil {
		_ = plain.Close()
		c.tell(b, err)
		return nil, fmt.Errorf("TLS: %w", err)
	}
	stream.ForgetDeadlines()
	return stream, nil
}

// tell logs why no TLS came about with b, which a check of its own kind may never notice and a client is not told;
// once a minute, since each request may find it out anew.
func (c *carrier) tell(b *forward.Backend, err error) {
	if errors.Is(err, context.Canceled) {
		return // who wanted it has gone
	}
	now := time.Now()
	c.mu.Lock()
	last, told := c.told[b]
	quiet := told && now.Sub(last) < tellEvery
	if !quiet {
		c.told[b] = now
	}
	c.mu.Unlock()
	if !quiet {
		c.server.opts.Log.Warn("no TLS with a backend", "backend", b.Address(), "error", err)
	}
}

// sweep leaves connections whose backend is out of use or spoken to in another way now, and those that
// nobody has needed for long.
func (c *carrier) sweep(now time.Time) {
	c.mu.Lock()
	var old []*peers
	for b, ps := range c.peers {
		if !b.InUse() || b.Via() != ps.via {
			delete(c.peers, b)
			old = append(old, ps)
		}
	}
	maps.DeleteFunc(c.told, func(b *forward.Backend, last time.Time) bool { return !b.InUse() || now.Sub(last) >= tellEvery })
	c.mu.Unlock()
	for _, ps := range old {
		ps.retire()
	}
	for _, ps := range c.all() {
		ps.sweep(now.Add(-forward.DefaultIdleTimeout))
	}
}

func (c *carrier) all() []*peers {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*peers, 0, len(c.peers))
	for _, ps := range c.peers {
		all = append(all, ps)
	}
	return all
}

// close ends every connection and waits for its reader. Nobody joins any more.
func (c *carrier) close() {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	for _, ps := range c.all() {
		ps.retire()
	}
	c.reader.Wait()
}
