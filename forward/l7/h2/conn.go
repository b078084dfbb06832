package h2

import (
	"cmp"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Defaults of Options.
const (
	DefaultMaxStreams = 128
	DefaultWindow     = 256 << 10
	DefaultMaxHead    = 16 << 10
	DefaultStall      = time.Minute
)

const (
	preface = http2.ClientPreface
	// A field section that is larger than it may be, but by less than this factor, is read to its end: that costs its stream
	// alone. To stop in the middle would lose the state of the compression, and with it all that the connection carries.
	patience = 4
	// initialWindow is what both sides have until SETTINGS say otherwise.
	initialWindow = 65535
	// connWindow is how much all streams together may have received and not read.
	connWindow = 1 << 20
	// maxFrame is the largest frame that is taken.
	maxFrame = 16 << 10
	// frameHeader is the length of what begins a frame.
	frameHeader = 9
	// maxOut is how much may wait to be written before senders wait.
	maxOut = 64 << 10
	// maxWindow is the largest window there can be.
	maxWindow = 1<<31 - 1
	// A peer may reset this many streams more than it lets end within calmFor.
	spareResets = 100
	// A peer may send this many frames in a row that move nothing within calmFor, and half as many for one field block.
	spareFrames = 2000
	calmFor     = 10 * time.Second
	// lingerBytes is how much a peer may send after it was told that the connection ends. Whoever floods gets no more.
	lingerBytes = 256 << 10
	// maxOwed is how many answers, to PING and the like, may wait until the peer reads.
	maxOwed = 2000
)

// Errors of a connection and its streams.
var (
	ErrClosed = errors.New("connection is closed")
	ErrReset  = errors.New("stream was reset")
	ErrStall  = errors.New("peer was silent for too long")
	// ErrGoAway and ErrRefused: the peer has done nothing about the stream, and will not.
	ErrGoAway  = errors.New("peer takes no more streams")
	ErrRefused = errors.New("peer refused the stream")
	// ErrProtocol: the peer broke the rules in this stream, which was reset for that.
	ErrProtocol = errors.New("peer broke the protocol")
	// ErrLate: a head, or the preface, did not come in time.
	ErrLate = errors.New("head did not arrive in time")
	// ErrFlood: the peer has made work for nothing.
	ErrFlood = errors.New("peer floods")
)

// Options are what a Conn needs.
type Options struct {
	// Client makes it the side that opens streams. Whoever has started the last one after Leave calls Close.
	Client bool
	// Serve handles a stream that the peer has opened; it is called on the reading
	// goroutine and must not block. Required for a server.
	Serve func(*Stream)
	// MaxStreams is how many streams a peer may have open; 0 means DefaultMaxStreams.
	MaxStreams int
	// Window is how much of a stream is received before it is read; 0 means
	// DefaultWindow.
	Window int
	// MaxHead bounds a field section, uncompressed; 0 means DefaultMaxHead. One that is larger is Truncated, or ends its
	// stream; one that is much larger ends the connection.
	MaxHead int
	// Extended allows CONNECT with a protocol (RFC 8441).
	Extended bool
	// Waited is called when nothing has arrived within Idle, or the read was
	// interrupted. An error ends the connection. nil = the connection ends.
	Waited func() error
	// Idle is how long to wait for a frame before Waited is called.
	Idle func() time.Duration
	// Head is how long the preface, and each field block from its first frame to its last, may take to arrive; nil = any time.
	// Only with Idle.
	Head func() time.Duration
	// Stall is how long one write may take; 0 means DefaultStall.
	Stall time.Duration
}

// A Conn is one connection.
type Conn struct {
	// Immutable.
	opts Options
	wire *forward.Stream

	// Owned by Run.
	in      input
	framer  *http2.Framer
	settled bool // the peer's SETTINGS have come
	vain    int  // frames in a row that moved nothing
	calm    time.Time
	owes    bool // the reader has put something into out, for others to write

	heard atomic.Uint64 // frames so far
	known chan struct{} // of a client: closed when the peer's SETTINGS have come, or will not
	knows sync.Once     // closes it

	writers sync.WaitGroup // what kick has started

	mu       sync.Mutex // guards the rest
	streams  map[uint32]*Stream
	open     int       // streams of the peer whose handler has not returned, or ours that are open
	resets   int       // streams reset by the peer, less those that ended
	calmed   time.Time // when they were last let off
	data64   uint64    // bytes of bodies sent
	seen64   uint64    // of these, when the last WINDOW_UPDATE came
	last     uint32    // the highest stream of the peer
	nextID   uint32    // our next stream
	limit    uint32    // how many streams the peer allows
	greeted  bool      // the peer has sent SETTINGS
	gone     bool      // the peer has said GOAWAY
	leaving  bool      // we have
	warned   bool      // we have said that we shall
	err      error     // why it has ended
	sendWin  int64
	recvWin  int64 // what the peer may still send
	consumed int64 // what was read and not yet given back
	initial  int64 // window of new streams, as the peer said
	frame    int   // largest frame the peer takes
	extended bool  // the peer takes CONNECT with a protocol
	out      []byte
	owed     int // answers in it
	spare    []byte
	writing  bool
	said     chan struct{} // closed when nobody writes any more; nil: nobody waits for that
	waiting  []*Stream     // to send

	// Of a client: the streams that it has reset lately, on which the peer may not have heard of it yet.
	cut   map[uint32]struct{}
	order []uint32
}

// maxCut is how many of them are remembered.
const maxCut = 1024

// cutLocked remembers a stream that we have reset.
func (c *Conn) cutLocked(id uint32) {
	if c.cut == nil {
		c.cut = make(map[uint32]struct{})
	}
	if len(c.order) == maxCut {
		delete(c.cut, c.order[0])
		c.order = append(c.order[:0], c.order[1:]...)
	}
	c.cut[id] = struct{}{}
	c.order = append(c.order, id)
}

// strayLocked judges a frame of a stream that we do not have (any more). RFC 9113, 5.1: it may be on its way since
// before we have reset it; otherwise the peer does not know what it says.
func (c *Conn) strayLocked(id uint32) error {
	if _, ours := c.cut[id]; ours {
		return nil
	}
	return http2.ConnectionError(http2.ErrCodeStreamClosed)
}

// New returns a connection over wire; early is what was read from it already, and may
// be nil. Nothing is sent before Run.
func New(wire *forward.Stream, early *forward.Buffer, opts Options) *Conn {
	opts.MaxStreams = cmp.Or(opts.MaxStreams, DefaultMaxStreams)
	opts.Window = cmp.Or(opts.Window, DefaultWindow)
	opts.MaxHead = cmp.Or(opts.MaxHead, DefaultMaxHead)
	opts.Stall = cmp.Or(opts.Stall, DefaultStall)
	c := &Conn{
		opts: opts, wire: wire, streams: make(map[uint32]*Stream), calm: time.Now(), calmed: time.Now(),
		nextID: 1, limit: 100, sendWin: initialWindow, recvWin: connWindow, initial: initialWindow, frame: maxFrame,
	}
	c.known = make(chan struct{})
	c.in = input{conn: c, buf: early}
	c.framer = http2.NewFramer(io.Discard, &c.in)
	c.framer.SetMaxReadFrameSize(maxFrame)
	c.framer.SetReuseFrames()
	c.framer.MaxHeaderListSize = uint32(patience * opts.MaxHead)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.greet()
	return c
}

// greet puts what is sent first into the buffer.
func (c *Conn) greet() {
	if c.opts.Client {
		c.out = append(c.out, preface...)
	}
	settings := []http2.Setting{
		{ID: http2.SettingInitialWindowSize, Val: uint32(c.opts.Window)},
		{ID: http2.SettingMaxHeaderListSize, Val: uint32(c.opts.MaxHead)},
	}
	if c.opts.Client {
		settings = append(settings, http2.Setting{ID: http2.SettingEnablePush, Val: 0})
	} else {
		settings = append(settings, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: uint32(c.opts.MaxStreams)})
		if c.opts.Extended {
			settings = append(settings, http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1})
		}
	}
	c.out = appendFrame(c.out, http2.FrameSettings, 0, 0, 6*len(settings))
	for _, s := range settings {
		c.out = append(c.out, byte(s.ID>>8), byte(s.ID), byte(s.Val>>24), byte(s.Val>>16), byte(s.Val>>8), byte(s.Val))
	}
	c.out = appendWindow(c.out, 0, connWindow-initialWindow)
}

// Run reads until the connection ends. Streams that are open then end with an error.
func (c *Conn) Run() error {
	err := c.read()
	if c.Open() == 0 { // what was the end of others is still to be said
		c.kick()
		c.writers.Wait()
	}
	c.end(err)
	if !c.opts.Client {
		c.writers.Wait()
	}
	c.in.buf.Free()
	c.in.buf = nil
	return err
}

func (c *Conn) read() error {
	c.kick()
	if !c.opts.Client {
		var have [len(preface)]byte
		c.in.limit()
		if _, err := io.ReadFull(&c.in, have[:]); err != nil {
			return c.late(err)
		}
		c.in.by = time.Time{}
		if string(have[:]) != preface {
			return c.fail(http2.ErrCodeProtocol, "not the preface of HTTP/2")
		}
	}
	for {
		f, err := c.next()
		c.heard.Add(1)
		if err == nil {
			err = c.handle(f)
		}
		switch e := err.(type) {
		case nil:
		case http2.StreamError:
			if err := c.streamError(e); err != nil {
				return err
			}
		case http2.ConnectionError:
			return c.fail(http2.ErrCode(e), "")
		default:
			if errors.Is(err, http2.ErrFrameTooLarge) {
				return c.fail(http2.ErrCodeFrameSize, "")
			}
			return c.late(err)
		}
		if c.done() {
			return nil
		}
	}
}

// next reads a frame, or all frames of a field block.
func (c *Conn) next() (http2.Frame, error) {
	h, err := c.framer.ReadFrameHeader()
	if err != nil {
		return nil, err
	}
	if h.Type == http2.FrameHeaders {
		c.in.limit()
		c.in.inBlock, c.in.frames = true, 0
		defer func() { c.in.by, c.in.inBlock = time.Time{}, false }()
	}
	return c.framer.ReadFrameForHeader(h)
}

// late ends the connection if err is ErrLate: where the next frame begins is not known.
func (c *Conn) late(err error) error {
	if errors.Is(err, ErrLate) {
		_ = c.fail(http2.ErrCodeEnhanceYourCalm, "")
	}
	return err
}

// done reports whether there is nothing left to do on a connection that is being left.
func (c *Conn) done() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leaving && c.open == 0 || c.err != nil
}

// streamError resets one stream. Its frame counts as the opening of one.
func (c *Conn) streamError(e http2.StreamError) error {
	c.mu.Lock()
	if !c.opts.Client && e.StreamID > c.last {
		if e.StreamID%2 == 0 {
			c.mu.Unlock()
			return c.fail(http2.ErrCodeProtocol, "")
		}
		c.last = e.StreamID
	}
	calm := c.tooManyLocked()
	if s := c.streams[e.StreamID]; s != nil && c.opts.Client {
		s.err = cmp.Or(s.err, ErrProtocol)
	}
	c.resetLocked(e.StreamID, e.Code)
	calm = c.owesLocked() != nil || calm
	c.mu.Unlock()
	if calm {
		return c.fail(http2.ErrCodeEnhanceYourCalm, "")
	}
	return nil
}

// tooManyLocked counts a stream that came to nothing, and reports whether there
// have been too many in a short time. c.mu is held.
func (c *Conn) tooManyLocked() bool {
	if c.resets++; c.resets <= spareResets || c.opts.Client {
		return false
	}
	now := time.Now()
	calm := now.Sub(c.calmed) > calmFor
	if calm {
		c.calmed, c.resets = now, 0
	}
	return !calm
}

// resetLocked sends RST_STREAM and ends the stream, if there is one. c.mu is held.
func (c *Conn) resetLocked(id uint32, code http2.ErrCode) {
	c.out = appendFrame(c.out, http2.FrameRSTStream, 0, id, 4)
	c.out = append(c.out, byte(code>>24), byte(code>>16), byte(code>>8), byte(code))
	if c.opts.Client {
		c.cutLocked(id)
	}
	if s := c.streams[id]; s != nil {
		s.endLocked(ErrReset)
	}
}

// fail says GOAWAY and ends the connection.
func (c *Conn) fail(code http2.ErrCode, why string) error {
	c.mu.Lock()
	c.goAwayLocked(code)
	c.mu.Unlock()
	err := error(http2.ConnectionError(code))
	switch {
	case code == http2.ErrCodeEnhanceYourCalm:
		err = ErrFlood
	case why != "":
		err = errors.New(why)
	}
	c.kick()
	said := c.awaitSaid()
	c.end(err)
	if said {
		c.wire.Linger(forward.LingerFor, lingerBytes)
	} else {
		c.wire.Abort() // the peer does not read
	}
	return err
}

func (c *Conn) goAwayLocked(code http2.ErrCode) {
	c.leaving = true
	c.sayGoAwayLocked(c.last, code)
}

// sayGoAwayLocked says that streams after last are not looked at. c.mu is held.
func (c *Conn) sayGoAwayLocked(last uint32, code http2.ErrCode) {
	c.out = appendFrame(c.out, http2.FrameGoAway, 0, 0, 8)
	c.out = append(c.out, byte(last>>24), byte(last>>16), byte(last>>8), byte(last))
	c.out = append(c.out, byte(code>>24), byte(code>>16), byte(code>>8), byte(code))
}

// Warn says that no more streams are wanted and goes on to take them, since some are on their way (GOAWAY of a stream that there
// cannot be; RFC 9113, 6.8). Who heeds it ends the connection when nothing is open; Leave ends it in any case.
func (c *Conn) Warn() {
	c.mu.Lock()
	says := !c.opts.Client && !c.leaving && !c.warned && c.err == nil
	if says {
		c.warned = true
		c.sayGoAwayLocked(maxWindow, http2.ErrCodeNo)
	}
	c.mu.Unlock()
	if says {
		c.kick()
	}
}

// Leave says GOAWAY: open streams end in order, and then the connection; the goroutine of Run may call it, or anybody
// before. A client says nothing and just opens no more; any goroutine may call that.
func (c *Conn) Leave() {
	c.mu.Lock()
	says := !c.opts.Client && !c.leaving && c.err == nil
	if says {
		c.goAwayLocked(http2.ErrCodeNo)
	}
	c.leaving = true
	c.mu.Unlock()
	if says {
		c.kick()
	}
}

// end ends what is left.
func (c *Conn) end(err error) {
	if err == nil {
		err = ErrClosed
	}
	c.mu.Lock()
	if c.err == nil {
		c.err = err
	}
	for _, s := range c.streams {
		s.endLocked(ErrClosed)
	}
	c.mu.Unlock()
	c.know()
}

func (c *Conn) know() { c.knows.Do(func() { close(c.known) }) }

// Open returns how many streams are open.
func (c *Conn) Open() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open
}

// mostStreams is how many streams a client has open at a time, whatever the peer allows.
const mostStreams = 1000

// Limit returns how many streams a client may have open; 0 if it may open none any more.
func (c *Conn) Limit() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.gone || c.leaving || c.nextID > maxWindow-2 {
		return 0
	}
	return int(min(c.limit, mostStreams))
}

// Heard counts the frames that have come.
func (c *Conn) Heard() uint64 { return c.heard.Load() }

// Ping asks the peer for a sign of life, which Heard counts. Only the goroutine of Run may call it.
func (c *Conn) Ping() {
	c.mu.Lock()
	c.out = append(appendFrame(c.out, http2.FramePing, 0, 0, 8), "pharos?!"...)
	c.mu.Unlock()
	c.kick()
}

// Extended reports whether the peer takes CONNECT with a protocol (RFC 8441). It waits for
// its SETTINGS, for within at most.
func (c *Conn) Extended(within time.Duration) bool {
	if wait(c.known, within) != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.extended
}

// Alive reports whether the connection can still be used for new streams, now or later.
func (c *Conn) Alive() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err == nil && !c.gone && !c.leaving
}
