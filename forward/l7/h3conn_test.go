package l7

import (
	"context"
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

// TestOpenConn3: the function that h3conn.go takes from package http3 is of the type that it says.
func TestOpenConn3(t *testing.T) {
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "github.com/quic-go/quic-go/http3").Output()
	if err != nil {
		t.Fatal(err)
	}
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(strings.TrimSpace(string(dir)), "server.go"), nil, 0)
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
		select {
		case <-c.Context().Done():
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: the connection goes on", name)
		}
		var end *quic.ApplicationError
		if err := context.Cause(c.Context()); !errors.As(err, &end) || end.ErrorCode != quic.ApplicationErrorCode(http3.ErrCodeExcessiveLoad) {
			t.Errorf("%s: it ended with %v", name, err)
		}
		if got := f.Stats().Floods3 - before; got != 1 {
			t.Errorf("%s: %d were counted, want 1", name, got)
		}
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
	open := 1
	for ; open < 100; open++ {
		s, err := c.OpenUniStream()
		if err != nil {
			break
		}
		s.Write([]byte{0x80}) // a part of a kind
	}
	if open > maxUniStreams3 {
		t.Errorf("%d could be opened, want %d", open, maxUniStreams3)
	}
}
