package l7

import (
	"context"
	"net/http"
	"sync"
	"time"
	_ "unsafe" // for go:linkname

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"
)

const (
	// maxUniStreams3 is how many streams of one direction a client may have open: HTTP/3 needs three, and leaves room for
	// kinds that are not known here.
	maxUniStreams3 = 16
	goAwayFrame3   = 7
	// firstUnknown3 is the first kind of such a stream that means nothing to a server.
	firstUnknown3 = 4
)

// openConn3 makes a client's connection one of HTTP/3: it says our SETTINGS. Package http3 gives away only the first of
// the two that it returns (as Server.NewRawServerConn), and without the control stream nobody can be told to go elsewhere.
// The pinned version has it as here: TestOpenConn3 looks. See docs/decisions/0030.
//
//go:linkname openConn3 github.com/quic-go/quic-go/http3.(*Server).newRawServerConn
func openConn3(*http3.Server, *quic.Conn) (*http3.RawServerConn, *quic.SendStream, error)

// accept serves connections. Whose handshake ends once clients are to go elsewhere is told so.
func (f *front3) accept() {
	for {
		c, err := f.listener.Accept(f.present)
		if err != nil {
			return
		}
		f.serving.Go(func() { f.converse(c) })
	}
}

// newEnds3 are the ends of a client's connection.
func newEnds3(c *quic.Conn) *ends {
	e := &ends{peer: addrPort(c.RemoteAddr()), local: addrPort(c.LocalAddr()), secure: true}
	e.from = e.peer.Addr().AppendTo(nil)
	e.to = e.local.AppendTo(nil)
	e.whom.Source, e.whom.Destination = e.peer, e.local
	state := c.ConnectionState().TLS
	e.whom.Authority, e.whom.ALPN = state.ServerName, http3.NextProtoH3
	return e
}

// converse serves a connection until it ends.
func (f *front3) converse(c *quic.Conn) {
	link, ok := c.Context().Value(link3Key{}).(*link3)
	if !ok {
		return // there is none that admit has not let in
	}
	link.conn, link.ends = c, newEnds3(c)
	context.AfterFunc(c.Context(), link.ends.whom.Gone)
	talk, control, err := openConn3(f.http, c)
	if err != nil {
		_ = c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeInternalError), "")
		return
	}
	f.links.Store(link, struct{}{})
	defer f.links.Delete(link)
	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() {
		for {
			s, err := c.AcceptUniStream(f.present)
			if err != nil {
				return
			}
			parts.Go(func() { f.side(link, talk, s) })
		}
	})
	until, next := f.here, quic.StreamID(0)
	for {
		s, err := c.AcceptStream(until)
		switch {
		case err == nil && until == f.present: // it has not read yet that it should go elsewhere
			s.ReleaseStreamCredit()
			s.CancelRead(quic.StreamErrorCode(http3.ErrCodeRequestRejected))
			s.CancelWrite(quic.StreamErrorCode(http3.ErrCodeRequestRejected))
		case err == nil:
			next = s.StreamID() + 4
			parts.Go(func() { f.take(link, talk, s) })
		case f.present.Err() != nil:
			_ = talk.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
			return
		case f.here.Err() == nil || until == f.present:
			return // the connection has ended
		default:
			until = f.present
			parts.Go(func() { // which waits where the client has left no room
				_, _ = control.Write(goAway3(next))
			})
		}
	}
}

// goAway3 is a GOAWAY frame: no stream from next on is looked at.
func goAway3(next quic.StreamID) []byte {
	out := quicvarint.Append(nil, goAwayFrame3)
	out = quicvarint.Append(out, uint64(quicvarint.Len(uint64(next))))
	return quicvarint.Append(out, uint64(next))
}

// take handles a stream that is to carry a request. Its head has to be there in time: serve lifts that limit.
func (f *front3) take(l *link3, talk *http3.RawServerConn, s *quic.Stream) {
	by := time.Now().Add(f.settings.Load().times.Header)
	_ = s.SetReadDeadline(by)
	l.expect(s.StreamID())
	talk.HandleRequestStream(s)
	if !l.arrived(s.StreamID()) || l.conn.Context().Err() != nil {
		return // serve has been called, or the connection has ended
	}
	m := f.server.metrics
	if context.Cause(s.Context()) == quic.ErrStreamClosed { // package http3 has answered, not reset
		m.shed[shedHeader].Add(1)
		m.replied(http.StatusRequestHeaderFieldsTooLarge)
		return
	}
	if !time.Now().Before(by) {
		m.shed[shedHeaderTime].Add(1)
	}
	f.count(l, true)
}

// expect says that the head of a stream's request is awaited.
func (l *link3) expect(id quic.StreamID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.awaited[id] = struct{}{}
}

// arrived says that it is not any more, and reports whether it was.
func (l *link3) arrived(id quic.StreamID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, awaited := l.awaited[id]
	delete(l.awaited, id)
	return awaited
}

// side handles a stream of one direction. It has to say in time what it is for.
func (f *front3) side(l *link3, talk *http3.RawServerConn, s *quic.ReceiveStream) {
	_ = s.SetReadDeadline(time.Now().Add(f.settings.Load().times.Header))
	kind, err := quicvarint.Peek(s)
	_ = s.SetReadDeadline(time.Time{}) // the control stream is there for as long as the connection
	if err != nil {
		s.CancelRead(quic.StreamErrorCode(http3.ErrCodeStreamCreationError))
	}
	if err != nil || kind >= firstUnknown3 {
		f.count(l, true)
	}
	talk.HandleUnidirectionalStream(s)
}

// count counts something that a client has done, and ends its connection if too much was in vain.
func (f *front3) count(l *link3, vain bool) {
	if l.conn.Context().Err() == nil && l.tally.add(vain, time.Now()) {
		f.dismiss(l)
	}
}

// weigh ends the connections over which too much came that was of no use.
func (f *front3) weigh(now time.Time) {
	for key := range f.links.Range {
		if l := key.(*link3); l.conn.Context().Err() == nil && l.scale.weigh(l.conn.ConnectionStats(), now) {
			f.dismiss(l)
		}
	}
}

// dismiss ends a connection that has made work for nothing.
func (f *front3) dismiss(l *link3) {
	f.server.metrics.floods3.Add(1)
	_ = l.conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeExcessiveLoad), "too much came to nothing")
}
