package l7

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward/l7/certtest"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// reviewed3 is the version of quic-go that h3conn.go has been read beside. With another, read http3's newRawServerConn, handleConn
// and HandleRequestStream again (docs/decisions/0030), and look whether its public functions will do by now.
const reviewed3 = "v0.65.0"

// TestOpenConn3: the function that h3conn.go takes from package http3 is of the version, and the type, that it says.
func TestOpenConn3(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.Module.Version}} {{.Dir}}", "github.com/quic-go/quic-go/http3").Output()
	if err != nil {
		t.Fatal(err)
	}
	version, dir, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	if version != reviewed3 {
		t.Errorf("quic-go is %s, and was reviewed at %s", version, reviewed3)
	}
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, "server.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	types := func(l *ast.FieldList) (out []string) {
		for _, f := range l.List {
			name := ""
			ast.Inspect(f.Type, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.StarExpr:
					name += "*"
				case *ast.Ident:
					name += "." + n.Name
				}
				return true
			})
			out = append(out, name)
		}
		return out
	}
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Name.Name != "newRawServerConn" {
			continue
		}
		got := fmt.Sprint(types(f.Recv), types(f.Type.Params), types(f.Type.Results))
		if want := "[*.Server] [*.quic.Conn] [*.RawServerConn *.quic.SendStream .error]"; got != want {
			t.Errorf("it is %s, want %s", got, want)
		}
		return
	}
	t.Error("there is none")
}

// TestHeads3: the head of a request has to be there in time, whatever of it has come; the stream ends, and others do not.
func TestHeads3(t *testing.T) {
	ca := certtest.New(t)
	const short = 300 * time.Millisecond
	f := start(t, Options{Listeners: []Listener{{Routes: anyRoute, TLS: secure(ca, "a.test"), HTTP3: true, Times: Times{Header: short}}}},
		webBackend(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
	c, err := dial3(t, ca, f.Addrs3()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	get := []string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a.test"}
	post := append([]string{":method", "POST"}, get[2:]...)
	whole := headers3(get)
	open := func(sent []byte) *quic.Stream {
		t.Helper()
		s, err := c.OpenStreamSync(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.SetReadDeadline(time.Now().Add(10 * time.Second))
		s.Write(sent)
		return s
	}
	slow := open(headers3(post)) // whose body takes longer than a head may
	halves := map[string][]byte{
		"a kind": whole[:1], "a length": whole[:2], "half": whole[:len(whole)/2], "all but one byte": whole[:len(whole)-1],
		"an unknown frame": {0x21, 0x40, 0xff, 1, 2}, "unknown frames, then half": append([]byte{0x21, 0, 0x21, 1, 1}, whole[:5]...),
		"half a kind": {0x40},
	}
	held := make(map[string]*quic.Stream)
	for name, sent := range halves {
		held[name] = open(sent)
	}
	if got, _ := exchange3(t, c, get, func() {}); got != "200" {
		t.Errorf("beside them: got %s", got)
	}
	const incomplete = quic.StreamErrorCode(http3.ErrCodeRequestIncomplete)
	for name, s := range held {
		_, err := s.Read(make([]byte, 1))
		if e, ok := errors.AsType[*quic.StreamError](err); !ok || !e.Remote || e.ErrorCode != incomplete {
			t.Errorf("%s: reading ends with %v", name, err)
		}
		<-s.Context().Done()
		if e, ok := errors.AsType[*quic.StreamError](context.Cause(s.Context())); !ok || !e.Remote || e.ErrorCode != incomplete {
			t.Errorf("%s: writing ends with %v", name, context.Cause(s.Context()))
		}
	}
	until(t, "all are counted", func() bool { return f.Stats().Refusals["header_time"] == uint64(len(halves)) })
	slow.Write([]byte{0, 4, 'b', 'o', 'd', 'y'})
	slow.Close()
	if got, err := io.ReadAll(slow); err != nil || !strings.Contains(string(got), "body") {
		t.Errorf("a slow body: got %q, %v", got, err)
	}
	s := open(headers3(append(get, "x", strings.Repeat("~", 40_000))))
	io.Copy(io.Discard, s)
	until(t, "a head that is too large is counted", func() bool { return f.Stats().Refusals["header"] == 1 && f.Stats().Replied[31] == 1 })
	if n := f.Stats().Refusals["header_time"]; n != uint64(len(halves)) {
		t.Errorf("%d heads were late, want %d", n, len(halves))
	}
	if c.Context().Err() != nil {
		t.Errorf("the connection has ended: %v", context.Cause(c.Context()))
	}
}

// TestHeadFloods3: heads that are begun and broken off count as requests that are.
func TestHeadFloods3(t *testing.T) {
	ca := certtest.New(t)
	f := start(t, Options{Listeners: listener3(ca)}, webBackend(t, func(http.ResponseWriter, *http.Request) {}))
	for name, begin := range map[string]func(c *quic.Conn) error{
		"half heads": func(c *quic.Conn) error {
			s, err := c.OpenStreamSync(t.Context())
			if err != nil {
				return err
			}
			s.Write([]byte{1, 10, 0})
			s.Close()
			s.SetReadDeadline(time.Now().Add(10 * time.Second))
			s.Read(make([]byte, 1)) // it has been seen
			return nil
		},
		"streams of unknown kinds": func(c *quic.Conn) error {
			s, err := c.OpenUniStreamSync(t.Context())
			if err != nil {
				return err
			}
			s.Write([]byte{0x21})
			s.Close() // which fails if the server was faster: it is counted all the same
			return nil
		},
		"streams of no kind": func(c *quic.Conn) error {
			s, err := c.OpenUniStreamSync(t.Context())
			if err != nil {
				return err
			}
			return s.Close()
		},
	} {
		before := f.Stats().Floods3
		c, err := dial3(t, ca, f.Addrs3()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		for range spareResets3 + 1 {
			if begin(c) != nil {
				break
			}
		}
		leftAsFlood(t, name, f, before, c)
	}
}

// TestSides3: a stream of one direction that does not say what it is for is not waited for; there may be only so many, and
// requests go on.
func TestSides3(t *testing.T) {
	ca := certtest.New(t)
	f := start(t, Options{Listeners: []Listener{{Routes: anyRoute, TLS: secure(ca, "a.test"), HTTP3: true, Times: Times{Header: 300 * time.Millisecond}}}},
		webBackend(t, func(http.ResponseWriter, *http.Request) {}))
	c, err := dial3(t, ca, f.Addrs3()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	begun := map[string]*quic.SendStream{}
	for name, sent := range map[string][]byte{"half a kind": {0xc0, 0}, "unknown": {0x21, 1, 2, 3}} {
		s, err := c.OpenUniStream()
		if err != nil {
			t.Fatal(err)
		}
		s.Write(sent)
		begun[name] = s
	}
	for name, s := range begun {
		select {
		case <-s.Context().Done():
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: it is waited for", name)
		}
		if e, ok := errors.AsType[*quic.StreamError](context.Cause(s.Context())); !ok || e.ErrorCode != quic.StreamErrorCode(http3.ErrCodeStreamCreationError) {
			t.Errorf("%s: it ended with %v", name, context.Cause(s.Context()))
		}
	}
	get := []string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a.test"}
	if got, _ := exchange3(t, c, get, func() {}); got != "200" { // this opens the control stream
		t.Errorf("then got %s", got)
	}
	patient := start(t, Options{Listeners: listener3(ca)}, nobody(t)) // within whose time none of them ends
	if c, err = dial3(t, ca, patient.Addrs3()[0].String()); err != nil {
		t.Fatal(err)
	}
	open := 0
	for ; open < 100; open++ {
		s, err := c.OpenUniStream()
		if err != nil {
			break
		}
		s.Write([]byte{0x80}) // a part of a kind
	}
	if open != maxUniStreams3 {
		t.Errorf("%d could be opened, want %d", open, maxUniStreams3)
	}
}

// TestLateComers3: whose handshake ends when clients are to go elsewhere already is told so, and requests are rejected, which a
// client may send again elsewhere.
func TestLateComers3(t *testing.T) {
	ca := certtest.New(t)
	f := start(t, Options{Listeners: listener3(ca)}, nobody(t))
	f.fronts3.mu.Lock()
	f.fronts3.fronts[0].leave()
	f.fronts3.mu.Unlock()
	c, err := dial3(t, ca, f.Addrs3()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	control, err := c.AcceptUniStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	control.SetReadDeadline(time.Now().Add(10 * time.Second))
	var got []byte
	for !strings.HasSuffix(string(got), "\x07\x01\x00") { // GOAWAY, before stream 0
		b := make([]byte, 64)
		n, err := control.Read(b)
		if got = append(got, b[:n]...); err != nil {
			t.Fatalf("got %x, %v", got, err)
		}
	}
	s, err := c.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	s.SetReadDeadline(time.Now().Add(10 * time.Second))
	s.Write(headers3([]string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a.test"}))
	_, err = s.Read(make([]byte, 1))
	if e, ok := errors.AsType[*quic.StreamError](err); !ok || e.ErrorCode != quic.StreamErrorCode(http3.ErrCodeRequestRejected) {
		t.Errorf("a request got %v", err)
	}
}

// TestHeadsOfTheGone3: heads that end with their connection are neither late nor too large.
func TestHeadsOfTheGone3(t *testing.T) {
	ca := certtest.New(t)
	f := start(t, Options{Listeners: listener3(ca)}, webBackend(t, func(http.ResponseWriter, *http.Request) {}))
	get := []string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a.test"}
	for name, tt := range map[string]struct {
		sent []byte
		end  func(c *quic.Conn)
	}{
		"left":          {headers3(get)[:5], func(c *quic.Conn) { c.CloseWithError(0x100, "") }},
		"DATA is first": {[]byte{0, 1, 'x'}, func(c *quic.Conn) { <-c.Context().Done() }},
	} {
		c, err := dial3(t, ca, f.Addrs3()[0].String())
		if err != nil {
			t.Fatal(name, err)
		}
		s, err := c.OpenStream()
		if err != nil {
			t.Fatal(name, err)
		}
		if got, _ := exchange3(t, c, get, func() { s.Write(tt.sent) }); got != "200" && name == "left" {
			t.Errorf("%s: beside it: got %s", name, got)
		}
		tt.end(c)
	}
	f.stop()
	if got := f.Stats(); got.Refusals["header"] != 0 || got.Refusals["header_time"] != 0 || got.Replied[31] != 0 {
		t.Errorf("refusals %v, replied %v", got.Refusals, got.Replied)
	}
}

// TestSettings3: a client that never finishes its SETTINGS holds a connection no longer than one that asks for nothing.
func TestSettings3(t *testing.T) {
	ca := certtest.New(t)
	l := listener3(ca)
	l[0].Idle = time.Second
	f := start(t, Options{Listeners: l}, webBackend(t, func(http.ResponseWriter, *http.Request) {}))
	c, err := quic.DialAddr(t.Context(), f.Addrs3()[0].String(),
		&tls.Config{RootCAs: ca.Pool(), ServerName: "a.test", NextProtos: []string{"h3"}}, &quic.Config{KeepAlivePeriod: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseWithError(0x100, "")
	for _, sent := range [][]byte{{0, 4, 0x50, 1}, {2, 0x3f}, {3}} { // half of SETTINGS, and of what comes on the streams of QPACK
		s, err := c.OpenUniStream()
		if err != nil {
			t.Fatal(err)
		}
		s.Write(sent)
	}
	select {
	case <-c.Context().Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the connection goes on")
	}
	until(t, "it is counted no more", func() bool { return f.Stats().Active3 == 0 })
}
