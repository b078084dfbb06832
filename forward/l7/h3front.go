package l7

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/internal/handover"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/sys/unix"
)

const (
	// altSvcFor is how long clients remember that HTTP/3 is spoken.
	altSvcFor = 24 * time.Hour
	// connWindow3 is how much of a connection is received and not yet passed on, streamWindow3 of a stream.
	connWindow3   = 1 << 20
	streamWindow3 = 256 << 10
	// farewell3 is how long clients have to leave by themselves when nothing is open any more.
	farewell3 = 250 * time.Millisecond
	// overlap3 is how long new connections are taken after another process has taken over.
	overlap3 = time.Second
)

// errBusy3 refuses a connection.
var errBusy3 = errors.New("too many connections")

// A front3 is one address at which HTTP/3 is spoken.
type front3 struct {
	// Immutable.
	server *Server
	asked  netip.AddrPort
	http   *http3.Server

	settings atomic.Pointer[settings]
	active   atomic.Int64   // requests
	left     atomic.Bool    // clients are told to go elsewhere
	serving  sync.WaitGroup // accepting, and connections
	here     context.Context
	leave    context.CancelFunc // ends here: connections are to go elsewhere
	present  context.Context
	end      context.CancelFunc // ends present, and here: they are closed
	links    sync.Map           // *link3 of those that are served

	// fronts3.mu guards the rest, until it is started.
	started   bool
	copies    []int // of the sockets that processes before this one have here, which keep their places
	conn      *net.UDPConn
	transport *quic.Transport
	listener  *quic.EarlyListener
}

// A link3 is a client's connection.
type link3 struct {
	// Immutable once the handshake has begun.
	conn *quic.Conn
	ends *ends

	tally tally3
	scale scale3

	mu      sync.Mutex                 // guards the rest
	awaited map[quic.StreamID]struct{} // streams on which the head of a request has not come yet
}

type link3Key struct{}

// newFront3 binds an address. It serves nothing yet. Where another process has it still, it is bound when we are to
// serve, since whoever comes goes to the newest socket.
func newFront3(s *Server, address netip.AddrPort, set *settings) (*front3, error) {
	f := &front3{server: s, asked: address}
	f.settings.Store(set)
	f.http = &http3.Server{
		Handler: http.HandlerFunc(f.serve), MaxHeaderBytes: maxHead3, IdleTimeout: set.idle,
	}
	f.present, f.end = context.WithCancel(context.Background())
	f.here, f.leave = context.WithCancel(f.present)
	for {
		fd, ok := handover.Take("udp", address.String())
		if !ok {
			break
		}
		if slices.ContainsFunc(f.copies, func(other int) bool { return socketNumber(other) == socketNumber(fd) }) {
			_ = unix.Close(fd)
			continue
		}
		f.copies = append(f.copies, fd)
	}
	if len(f.copies) > 0 {
		return f, nil
	}
	return f, f.open(true)
}

// open binds the address. With alone nobody else may have it.
func (f *front3) open(alone bool) error {
	groups := f.server.fronts3.groups
	use, joinErr := groups.join(f.asked, f.copies)
	var err error
	if f.conn, err = f.socket(use, alone); err != nil {
		groups.part(f.asked)
		return err
	}
	if err := errors.Join(joinErr, groups.settle(f.asked, f.conn)); err != nil {
		f.server.opts.Log.Error("QUIC clients of the process before may lose their connections", "error", err)
	}
	set := f.settings.Load()
	f.transport = &quic.Transport{Conn: f.conn, ConnContext: f.admit, VerifySourceAddress: f.doubts, ConnectionIDGenerator: groups}
	config := http3.ConfigureTLSConfig(&tls.Config{
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return f.settings.Load().tls.config.Load(), nil },
	})
	f.listener, err = f.transport.ListenEarly(config, &quic.Config{
		Allow0RTT: true, MaxIncomingStreams: int64(set.gate.limits.Streams), MaxIncomingUniStreams: maxUniStreams3, MaxIdleTimeout: set.idle,
		HandshakeIdleTimeout:           f.server.opts.HeaderTimeout / 2,
		InitialStreamReceiveWindow:     streamWindow3,
		MaxStreamReceiveWindow:         streamWindow3,
		InitialConnectionReceiveWindow: connWindow3,
		MaxConnectionReceiveWindow:     connWindow3,
	})
	if err != nil {
		_ = f.transport.Close()
		_ = f.conn.Close()
		f.conn = nil // it is not open: startLocked tries again, close has nothing to do
		groups.part(f.asked)
		return fmt.Errorf("listen on %s/udp: %w", f.asked, err)
	}
	return nil
}

// socket is one of the copies, which is a copy no more, or a new one for −1.
func (f *front3) socket(use int, alone bool) (*net.UDPConn, error) {
	if use < 0 {
		return bindUDP(f.asked, alone)
	}
	f.copies = slices.DeleteFunc(f.copies, func(fd int) bool { return fd == use })
	file := os.NewFile(uintptr(use), "udp "+f.asked.String())
	defer file.Close()
	c, err := net.FilePacketConn(file)
	if err != nil {
		return nil, fmt.Errorf("listen on %s/udp: %w", f.asked, err)
	}
	return c.(*net.UDPConn), nil
}

// forsake closes the copies.
func (f *front3) forsake() {
	for _, fd := range f.copies {
		_ = unix.Close(fd)
	}
	f.copies = nil
}

// addr is the bound address, or what is going to be bound.
func (f *front3) addr() netip.AddrPort {
	if f.conn == nil {
		return f.asked
	}
	return f.conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// bindUDP opens a socket that another process may share the address of, so that one can take over from another.
func bindUDP(address netip.AddrPort, alone bool) (*net.UDPConn, error) {
	text := address.String()
	if address.Addr() == netip.IPv6Unspecified() {
		text = fmt.Sprintf(":%d", address.Port())
	}
	if address.Port() != 0 && alone {
		probe, err := net.ListenPacket("udp", text) // without sharing: who is there already would get half of all
		if err != nil {
			return nil, fmt.Errorf("listen on %s/udp: %w%s", address, err, forward.Cure(address, err, "-lunp"))
		}
		_ = probe.Close()
	}
	config := net.ListenConfig{Control: reusePort}
	c, err := config.ListenPacket(context.Background(), "udp", text)
	if err != nil {
		return nil, fmt.Errorf("listen on %s/udp: %w", address, err)
	}
	return c.(*net.UDPConn), nil
}

// admit counts a connection, or refuses it.
func (f *front3) admit(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	m := f.server.metrics
	who := addrPort(info.RemoteAddr).Addr()
	table := f.settings.Load().gate.connections
	counted, err := table.Enter(who)
	switch {
	case f.left.Load():
		err = errBusy3
	case err != nil:
		m.shed[shedClientConnections].Add(1)
	case m.active3.Load() >= f.server.maxConns() || !f.server.registry.Intake().Take():
		m.refused3.Add(1)
		err = errBusy3
	default:
		m.active3.Add(1)
		m.http3.Add(1)
		context.AfterFunc(ctx, func() {
			m.active3.Add(-1)
			if counted {
				table.Leave(who)
			}
		})
		return context.WithValue(ctx, link3Key{}, &link3{awaited: make(map[quic.StreamID]struct{})}), nil
	}
	if counted {
		table.Leave(who)
	}
	return nil, err
}

// doubts asks clients to show that they have the address that they claim, once there are so many that some may not.
func (f *front3) doubts(net.Addr) bool {
	return f.server.metrics.active3.Load() > f.server.maxConns()/4
}

// start accepts connections.
func (f *front3) start() {
	f.serving.Go(f.accept)
}

// stop tells clients to go elsewhere (GOAWAY), lets what is open end within limit, and ends the rest. It returns
// when nothing is left.
func (f *front3) stop(limit time.Duration) {
	until, cancel := context.WithTimeout(context.Background(), max(limit, 0))
	defer cancel()
	f.leave()
	f.left.Store(true) // who connects now is refused
	ticker := time.NewTicker(farewell3 / 5)
	defer ticker.Stop()
	for quiet := 0; quiet < 5 && until.Err() == nil && f.server.metrics.active3.Load() > 0; {
		if f.active.Load() > 0 {
			quiet = 0
		}
		select {
		case <-until.Done():
		case <-ticker.C:
			quiet++
		}
	}
	f.end()
	f.serving.Wait()
	f.close()
}

// close frees what is open.
func (f *front3) close() {
	f.end()
	f.forsake()
	if f.conn == nil {
		return
	}
	_ = f.listener.Close()
	_ = f.transport.Close()
	_ = f.conn.Close() // the process that has taken over has a copy
	f.server.fronts3.groups.part(f.asked)
}

// serve handles one request.
func (f *front3) serve(rw http.ResponseWriter, r *http.Request) {
	f.active.Add(1)
	defer f.active.Add(-1)
	l, ok := r.Context().Value(link3Key{}).(*link3)
	if !ok {
		panic(http.ErrAbortHandler)
	}
	l.arrived(r.Body.(interface{ StreamID() quic.StreamID }).StreamID())
	l.scale.take(maxHead3)
	_ = rw.(deadliner).SetReadDeadline(time.Time{}) // which was that of the head
	d := &stream3{front: f, link: l, rw: rw, r: r}
	w := f.server.beginWith(f.settings.Load(), d, l.ends)
	w.shard = uint32(l.ends.peer.Port())
	d.request(r.Context(), w)
	if d.unread() { // as much may be on its way, and is thrown away
		l.scale.take(streamWindow3 / 2)
	}
	w.finish()
	w.free()
	tunnel := d.key != nil && d.began
	f.count(l, d.vain || d.gone() && !tunnel)
	if d.aborted {
		panic(http.ErrAbortHandler) // which is how package http3 is told to reset the stream
	}
}

// fronts3 are the addresses at which HTTP/3 is spoken.
type fronts3 struct {
	server *Server
	groups *quicGroups

	mu      sync.Mutex // guards the rest
	fronts  []*front3
	running bool
	ended   bool
	leaving sync.WaitGroup // those that were removed
}

// A change3 is another set of addresses with everything fallible done.
type change3 struct {
	fronts *fronts3
	next   []*front3
	fresh  []*front3
	sets   []*settings
}

// prepare binds what is new, and has listens say where HTTP/3 is spoken.
func (fs *fronts3) prepare(listeners []Listener, listens []forward.Listen[settings]) (*change3, error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	c := &change3{fronts: fs}
	var errs []error
	for i, l := range listeners {
		if !l.HTTP3 {
			continue
		}
		set := &listens[i].Settings
		if set.tls == nil {
			errs = append(errs, fmt.Errorf("listener %s: HTTP/3 needs TLS", l.Address))
			continue
		}
		f := fs.find(l.Address)
		if f == nil {
			var err error
			if f, err = newFront3(fs.server, l.Address, set); err != nil {
				errs = append(errs, err)
				continue
			}
			c.fresh = append(c.fresh, f)
		}
		set.altSvc = fmt.Appendf(nil, `h3=":%d"; ma=%d`, f.addr().Port(), int(altSvcFor.Seconds()))
		c.next, c.sets = append(c.next, f), append(c.sets, set)
	}
	if len(errs) > 0 {
		c.discard()
		return nil, errors.Join(errs...)
	}
	return c, nil
}

func (fs *fronts3) find(address netip.AddrPort) *front3 {
	for _, f := range fs.fronts {
		if f.asked == address {
			return f
		}
	}
	return nil
}

func (c *change3) discard() {
	for _, f := range c.fresh {
		f.close()
	}
}

// commit puts the change in force: new requests on open connections go by the new settings; connections
// of an address that is gone end after what they carry.
func (c *change3) commit() {
	fs := c.fronts
	fs.mu.Lock()
	defer fs.mu.Unlock()
	kept := make(map[*front3]bool, len(c.next))
	for i, f := range c.next {
		kept[f] = true
		f.settings.Store(c.sets[i])
	}
	for _, f := range fs.fronts {
		switch {
		case kept[f]:
		case f.started:
			fs.leaving.Go(func() { f.stop(fs.server.drain()) })
		default:
			f.close()
		}
	}
	fs.fronts = c.next
	fs.startLocked()
}

func (fs *fronts3) startLocked() {
	if !fs.running {
		return
	}
	for _, f := range fs.fronts {
		if f.started {
			continue
		}
		if f.conn == nil {
			if err := f.open(false); err != nil {
				fs.server.opts.Log.Error("HTTP/3 is not spoken at an address", "error", err)
				continue
			}
		}
		f.started = true
		f.start()
	}
}

// run serves until ctx ends, and then drains.
func (fs *fronts3) run(ctx context.Context) {
	fs.mu.Lock()
	fs.running = true
	fs.startLocked()
	fs.mu.Unlock()
	<-ctx.Done()
	limit, handed := forward.Drain(ctx, fs.server.drain())
	if handed { // the other process is about to bind its sockets: until then all come here
		time.Sleep(overlap3)
	}
	fs.mu.Lock()
	fs.running, fs.ended = false, true
	for _, f := range fs.fronts {
		if f.started {
			fs.leaving.Go(func() { f.stop(limit) })
		} else {
			f.close()
		}
	}
	fs.fronts = nil
	fs.mu.Unlock()
	fs.leaving.Wait()
}

// close frees the sockets of a Server that was never run.
func (fs *fronts3) close() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, f := range fs.fronts {
		f.close()
	}
	fs.fronts = nil
}

// tend looks whether a process before this one has ended, and for clients that send what is of no use.
func (fs *fronts3) tend(now time.Time) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, f := range fs.fronts {
		if f.started {
			fs.groups.tend(f.asked, f.conn)
			f.weigh(now)
		}
	}
}

// takeBack is Server.TakeBack.
func (fs *fronts3) takeBack() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, f := range fs.fronts {
		if !f.started {
			continue
		}
		if err := fs.groups.takeBack(f.asked, f.conn); err != nil {
			fs.server.opts.Log.Error("new QUIC clients may not reach this process", "error", err)
		}
	}
}

// addrs are the bound addresses.
func (fs *fronts3) addrs() []netip.AddrPort {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	var out []netip.AddrPort
	for _, f := range fs.fronts {
		out = append(out, f.addr())
	}
	return out
}

// reusePort lets another socket have the same address.
func reusePort(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }); e != nil {
		return e
	}
	return err
}
