package l7

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/h2"
)

// connect makes an HTTP/1.1 upgrade of an extended CONNECT (RFC 8441, RFC 9220), with the key that is returned;
// nil if it is for another protocol than WebSocket.
func (w *work) connect(protocol []byte) (key []byte) {
	if !is(protocol, "websocket") {
		return nil
	}
	var nonce [16]byte
	rand.Read(nonce[:])
	key = base64.StdEncoding.AppendEncode(nil, nonce[:])
	r := &w.req
	r.method, r.protocol, r.upgrade, r.upgrades = []byte("GET"), protocol, true, 1
	r.chunked, r.length = false, -1
	fields := r.fields[:0]
	for _, f := range r.fields {
		if !is(f.name, "sec-websocket-key") && f.kind != kindContentLength {
			fields = append(fields, f)
		}
	}
	r.fields = append(fields, field{name: []byte("sec-websocket-key"), value: key})
	return key
}

// proves reports whether a backend's answer proves that it has understood the handshake with key.
func (r *response) proves(key []byte) bool {
	want := websocketAccept(key)
	for i := range r.fields {
		if is(r.fields[i].name, "sec-websocket-accept") {
			r.fields[i].drop = true // later versions have none
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
	defer w.lease.Release(false)
	if !w.res.proves(d.key) {
		w.lease.Backend.ReportAnswer(forward.OutcomeProtocol)
		w.up.Abort()
		w.reply(fault{status: 502, text: "the backend did not accept the WebSocket"})
		return
	}
	w.status = 200
	m.answered(200)
	m.upgrades.Add(1)
	w.lease.Backend.Tell(true)
	w.res.status = 200
	if d.send(w, h2.Message{Head: appendHead2(nil, &w.res, -1)}) != troubleNone {
		w.lease.Backend.Report(forward.OutcomeClient)
		return
	}
	t := tunnel{client: &muxEnd{stream: d.stream, reset: d.abort}, backend: w.up.far(w), idle: w.set.times.Tunnel, ctx: ctx}
	outcome := t.run()
	w.lease.Backend.Report(outcome)
	if outcome != forward.OutcomeServed {
		w.up.Abort()
		d.abort()
	}
}
