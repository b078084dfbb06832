package l7

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/h2"
)

// asUpgrade makes an HTTP/1.1 upgrade of an extended CONNECT (RFC 8441); false if it is
// for another protocol than WebSocket.
func (d *stream2) asUpgrade(w *work, protocol []byte) bool {
	if !is(protocol, "websocket") {
		return false
	}
	var nonce [16]byte
	rand.Read(nonce[:])
	d.key = base64.StdEncoding.AppendEncode(nil, nonce[:])
	r := &w.req
	r.method, r.protocol, r.upgrade, r.upgrades = []byte("GET"), protocol, true, 1
	r.chunked, r.length = false, -1
	fields := r.fields[:0]
	for _, f := range r.fields {
		if !is(f.name, "sec-websocket-key") && f.kind != kindContentLength {
			fields = append(fields, f)
		}
	}
	r.fields = append(fields, field{name: []byte("sec-websocket-key"), value: d.key})
	return true
}

// accepts reports whether a backend's answer proves that it has understood the handshake.
func (d *stream2) accepts(r *response) bool {
	want := websocketAccept(d.key)
	for i := range r.fields {
		if is(r.fields[i].name, "sec-websocket-accept") {
			r.fields[i].drop = true // HTTP/2 has none
			return string(r.fields[i].value) == want
		}
	}
	return false
}

// websocketAccept is what a server answers to a key (RFC 6455, 4.2.2).
func websocketAccept(key []byte) string {
	sum := sha1.Sum(append(bytes.Clone(key), "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"...))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// tunnel passes the WebSocket on as the body of the stream.
func (d *stream2) tunnel(ctx context.Context, w *work) {
	m := w.server.metrics
	up := w.lease.Stream
	defer w.lease.Release(false)
	if !d.accepts(&w.res) {
		w.lease.Backend.ReportAnswer(forward.OutcomeProtocol)
		up.Abort()
		w.reply(fault{status: 502, text: "the backend did not accept the WebSocket"})
		return
	}
	m.answered(200)
	m.upgrades.Add(1)
	w.lease.Backend.Tell(true)
	w.res.status = 200
	w.back.R += w.scan.next
	if d.send(w, h2.Message{Head: appendHead2(nil, &w.res, -1), Data: w.back.Unread()}) != troubleNone {
		w.lease.Backend.Report(forward.OutcomeClient)
		return
	}
	w.back.Free()
	w.back = nil
	t := tunnel2{stream: d.stream, up: up, idle: w.server.opts.TunnelIdle, ctx: ctx}
	outcome := t.run()
	w.lease.Backend.Report(outcome)
	if outcome != forward.OutcomeServed {
		up.Abort()
		d.abort()
	}
}

// A tunnel2 copies between a stream and a backend until both have ended.
type tunnel2 struct {
	stream *h2.Stream
	up     *forward.Stream
	idle   time.Duration
	ctx    context.Context

	mu      sync.Mutex // guards the rest
	failed  bool
	outcome forward.Outcome
	moved   time.Time
}

func (t *tunnel2) run() forward.Outcome {
	t.up.ForgetDeadlines()
	t.outcome, t.moved = forward.OutcomeServed, time.Now()
	down := make(chan struct{})
	go func() {
		defer close(down)
		t.down()
	}()
	t.upward()
	<-down
	return t.outcome
}

// fail notes the first failure and makes the other direction end.
func (t *tunnel2) fail(o forward.Outcome) {
	t.mu.Lock()
	if !t.failed {
		t.failed, t.outcome = true, o
	}
	t.mu.Unlock()
	t.stream.Stop()
	t.up.Interrupt()
}

// look notes that something moved, or reports whether to go on after silence.
func (t *tunnel2) look(moved bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if moved {
		t.moved = time.Now()
	}
	return !t.failed && t.ctx.Err() == nil && time.Since(t.moved) < t.idle
}

func (t *tunnel2) down() {
	for {
		t.up.ReadWithin(max(t.idle/4, time.Millisecond))
		b, err := t.up.Receive()
		switch {
		case err == nil:
			t.look(true)
			err = t.stream.Send(h2.Message{Data: b.Unread()}, t.idle)
			b.Free()
			if err != nil {
				t.fail(forward.OutcomeClient)
				return
			}
		case errors.Is(err, io.EOF):
			_ = t.stream.Send(h2.Message{End: true}, t.idle)
			return
		case errors.Is(err, os.ErrDeadlineExceeded) && t.look(false):
		case errors.Is(err, os.ErrDeadlineExceeded):
			t.fail(forward.OutcomeTimeout)
			return
		default:
			t.fail(forward.OutcomeReset)
			return
		}
	}
}

func (t *tunnel2) upward() {
	for {
		p, end, err := t.stream.Receive(max(t.idle/4, time.Millisecond))
		switch {
		case err == nil:
			t.look(true)
			t.up.WriteWithin(2 * t.idle)
			if _, err := t.up.Write(p); len(p) > 0 && err != nil {
				t.fail(forward.OutcomeReset)
				return
			}
			if end {
				_ = t.up.CloseWrite()
				return
			}
		case errors.Is(err, h2.ErrStall) && t.look(false):
		case errors.Is(err, h2.ErrStall):
			t.fail(forward.OutcomeTimeout)
			return
		default:
			t.fail(forward.OutcomeClient)
			return
		}
	}
}
