package l7

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"testing"

	"github.com/pharos-lb/pharos/forward/l7/route"
)

// FuzzRequest: whatever is accepted here, net/http reads the same way: method,
// target, host, framing and body.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET http://b:80/x?y HTTP/1.1\r\nHost: a\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: [::1]:8\r\n\r\n",
		"POST /%41//b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nX: y\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
		"POST / HTTP/1.0\r\nConnection: keep-alive, x\r\nX: 1\r\nContent-Length: 0\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
		"GET / HTTP/1.1\nHost: a\n\n",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var scan headScan
		n, bad := scan.end(data)
		if bad.bad() || n == 0 {
			return
		}
		var r request
		if r.parse(data[:n]).bad() {
			return
		}
		std, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(data)))
		if err != nil {
			t.Fatalf("accepted here, but net/http says: %v", err)
		}
		compareRequests(t, &r, std, data[n:])
		composed(t, &r, data[n:])
	})
}

func compareRequests(t *testing.T, r *request, std *http.Request, rest []byte) {
	t.Helper()
	if string(r.method) != std.Method || string(r.authority) != std.Host || int(r.minor) != std.ProtoMinor {
		t.Fatalf("got %s %s 1.%d, net/http: %s %s 1.%d",
			r.method, r.authority, r.minor, std.Method, std.Host, std.ProtoMinor)
	}
	if std.URL.Scheme == "" && string(r.target) != std.RequestURI {
		t.Fatalf("target: got %q, net/http: %q", r.target, std.RequestURI)
	}
	if got := string(r.path); got != std.URL.EscapedPath() && std.URL.RawPath == "" && std.URL.Scheme != "" && got != "/" && got != "*" {
		t.Fatalf("path: got %q, net/http: %q", got, std.URL.EscapedPath())
	}
	if r.chunked != (len(std.TransferEncoding) == 1 && std.TransferEncoding[0] == "chunked") {
		t.Fatalf("chunked: got %v, net/http: %v", r.chunked, std.TransferEncoding)
	}
	if !r.chunked && max(r.length, 0) != std.ContentLength {
		t.Fatalf("length: got %d, net/http: %d", r.length, std.ContentLength)
	}
	want, err := io.ReadAll(std.Body)
	if !r.chunked {
		return
	}
	got, used, decodeErr := decode(rest)
	if decodeErr == nil && err != nil {
		t.Fatalf("chunks accepted here, but net/http says: %v", err)
	}
	if decodeErr == nil && !bytes.Equal(got, want) {
		t.Fatalf("body: got %q, net/http: %q", got, want)
	}
	_ = used
}

// composed checks that what goes upstream is read by net/http as the same
// request, one and only one.
func composed(t *testing.T, r *request, rest []byte) {
	t.Helper()
	out := sentUpstream(t, r)
	if r.chunked {
		payload, _, err := decode(rest)
		if err != nil {
			return
		}
		out = appendLastChunk(appendChunk(out, payload), nil)
	} else {
		out = append(out, make([]byte, min(max(r.length, 0), 1000))...)
	}
	if r.length > 1000 {
		return
	}
	again := bufio.NewReader(bytes.NewReader(out))
	std, err := http.ReadRequest(again)
	if err != nil {
		t.Fatalf("composed %q: %v", out, err)
	}
	if std.Method != string(r.method) || std.RequestURI != string(r.target) {
		t.Fatalf("composed %q: net/http reads %s %s", out, std.Method, std.RequestURI)
	}
	if _, err := io.Copy(io.Discard, std.Body); err != nil {
		t.Fatalf("composed %q: body: %v", out, err)
	}
	if left, _ := io.ReadAll(again); len(left) != 0 {
		t.Fatalf("composed %q: %q is left over", out, left)
	}
}

// sentUpstream is the head of a request as a backend gets it.
func sentUpstream(t *testing.T, r *request) []byte {
	upgrade := r.upgradeTo()
	w := works.Get().(*work)
	defer w.free()
	w.set, w.ends, w.rule = testSettings, testEnds, testSettings.routes.Rules()[0]
	w.req = *r
	w.identify(w.set)
	if f := w.prepare(); f.bad() {
		t.Fatalf("not prepared: %v", f)
	}
	return appendRequest(nil, &w.req, w.ends.to, upgrade)
}

var errMore = errors.New("more is needed")

// decode takes a whole chunked body apart.
func decode(p []byte) (body []byte, used int, err error) {
	var c chunkReader
	for !c.done() {
		payload, n, err := c.next(p[used:])
		if err != nil {
			return body, used, err
		}
		if n == 0 {
			return body, used, errMore
		}
		used += n
		body = append(body, payload...)
	}
	return body, used, nil
}

// FuzzResponse: what is accepted here net/http reads the same way.
func FuzzResponse(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.0 200\r\n\r\nrest",
		"HTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n",
		"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
	} {
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, data []byte, head bool) {
		var scan headScan
		n, bad := scan.end(data)
		if bad.bad() || n == 0 {
			return
		}
		var r response
		if r.parse(data[:n]).bad() {
			return
		}
		method := "GET"
		if head {
			method = "HEAD"
		}
		std, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(data)), &http.Request{Method: method})
		if err != nil {
			t.Fatalf("accepted here, but net/http says: %v", err)
		}
		if r.status != std.StatusCode {
			t.Fatalf("status: got %d, net/http: %d", r.status, std.StatusCode)
		}
		want, stdErr := io.ReadAll(std.Body)
		rest := data[n:]
		switch r.framing(head) {
		case frameNone:
			if len(want) != 0 {
				t.Fatalf("no body here, but net/http reads %q", want)
			}
		case frameLength:
			if std.ContentLength != r.length {
				t.Fatalf("length: got %d, net/http: %d", r.length, std.ContentLength)
			}
		case frameChunked:
			got, _, err := decode(rest)
			if err == nil && (stdErr != nil || !bytes.Equal(got, want)) {
				t.Fatalf("chunks: got %q, net/http: %q, %v", got, want, stdErr)
			}
		case frameClose:
			if !bytes.Equal(rest, want) {
				t.Fatalf("rest: got %q, net/http: %q", rest, want)
			}
		}
	})
}

// FuzzChunks: it does not matter how a chunked body is cut into reads, and what
// is decoded and chunked anew is the same body.
func FuzzChunks(f *testing.F) {
	f.Add([]byte("3\r\nabc\r\n0\r\n\r\nnext"), uint8(1))
	f.Add([]byte("3;a=b\r\nabc\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n"), uint8(7))
	f.Add([]byte("ffffffffffffffff\r\n"), uint8(3))
	f.Fuzz(func(t *testing.T, data []byte, step uint8) {
		want, wantUsed, wantErr := decode(data)
		var c chunkReader
		var got []byte
		used := 0
		for have := 0; !c.done(); {
			payload, n, err := c.next(data[used:have])
			if err != nil {
				if wantErr == nil || wantErr == errMore && have < len(data) {
					t.Fatalf("in steps of %d: %v, at once: %v", step, err, wantErr)
				}
				return
			}
			got = append(got, payload...)
			used += n
			if n == 0 {
				if have == len(data) {
					if wantErr == nil {
						t.Fatal("in steps: incomplete, at once: complete")
					}
					return
				}
				have = min(have+int(step)+1, len(data))
			}
		}
		if wantErr != nil || used != wantUsed || !bytes.Equal(got, want) {
			t.Fatalf("in steps: %q (%d), at once: %q (%d, %v)", got, used, want, wantUsed, wantErr)
		}
		anew := appendLastChunk(appendChunk(nil, got), c.trailers)
		if again, n, err := decode(anew); err != nil || n != len(anew) || !bytes.Equal(again, got) {
			t.Fatalf("chunked anew %q: %q, %v", anew, again, err)
		}
	})
}

// What a request is prepared with where no Server is.
var (
	testEnds = &ends{
		peer: netip.MustParseAddrPort("192.0.2.1:1234"), local: netip.MustParseAddrPort("192.0.2.2:80"),
		from: []byte("192.0.2.1"), to: []byte("192.0.2.2:80"),
	}
	testSettings = func() *settings {
		set, err := new(Server).settleOne(&Listener{Routes: anyRoute})
		if err != nil {
			panic(err)
		}
		return &set
	}()
)

// TestParseDoesNotAllocate names the hot path's budget: nothing.
func TestParseDoesNotAllocate(t *testing.T) {
	head := []byte(browserRequest)
	w := works.Get().(*work)
	defer w.free()
	n := testing.AllocsPerRun(1000, func() {
		var scan headScan
		n, _ := scan.end(head)
		if w.req.parse(head[:n]).bad() {
			t.Fatal("refused")
		}
		w.set, w.ends, w.arena = testSettings, testEnds, w.arena[:0]
		w.identify(w.set)
		w.ask = route.Request{Method: w.req.method, Host: w.req.hostname, Path: w.req.path, Client: w.who, Fields: &w.req}
		if w.rule = w.set.routes.Match(&w.ask, &w.space); w.rule == nil {
			t.Fatal("no route")
		}
		if w.prepare().bad() {
			t.Fatal("not prepared")
		}
		w.out = appendRequest(w.out[:0], &w.req, nil, nil)
	})
	if n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}
