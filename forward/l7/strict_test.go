package l7

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestStrict sends requests byte for byte. 200 means that the backend was
// reached.
func TestStrict(t *testing.T) {
	f := start(t, Options{HeaderTimeout: 5 * time.Second}, webBackend(t, func(w http.ResponseWriter, r *http.Request) {}))
	host := "Host: a.test\r\n"
	get := "GET / HTTP/1.1\r\n" + host
	post := "POST / HTTP/1.1\r\n" + host
	tests := []struct {
		name string
		send string
		want int
	}{
		{"plain", get + "\r\n", 200},
		{"1.0 without Host", "GET / HTTP/1.0\r\n\r\n", 200},
		{"own method", "PURGE / HTTP/1.1\r\n" + host + "\r\n", 200},
		{"chunked", post + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 200},
		{"chunked in capitals", post + "Transfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n", 200},
		{"chunk extension", post + "Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0;c\r\n\r\n", 200},
		{"trailer", post + "Transfer-Encoding: chunked\r\n\r\n0\r\nX-A: 1\r\n\r\n", 200},
		{"length", post + "Content-Length: 3\r\n\r\nabc", 200},
		{"absolute form", "GET http://a.test/x?y HTTP/1.1\r\nHost: other\r\n\r\n", 200},
		{"OPTIONS *", "OPTIONS * HTTP/1.1\r\n" + host + "\r\n", 200},
		{"IPv6 Host", "GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", 200},
		{"bytes above ASCII in a value", get + "X-A: caf\xc3\xa9\r\n\r\n", 200},
		{"bad UTF-8 in a value", get + "X-A: \xff\xfe\r\n\r\n", 200},

		{"length and coding", post + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"coding and length", post + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400},
		{"length twice", post + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400},
		{"length twice the same", post + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400},
		{"length as a list", post + "Content-Length: 3, 3\r\n\r\nabc", 400},
		{"length with a sign", post + "Content-Length: +3\r\n\r\nabc", 400},
		{"length below 0", post + "Content-Length: -1\r\n\r\n", 400},
		{"length in hex", post + "Content-Length: 0x3\r\n\r\nabc", 400},
		{"length empty", post + "Content-Length:\r\n\r\n", 400},
		{"length with a space inside", post + "Content-Length: 1 0\r\n\r\n", 400},
		{"length over 2^63", post + "Content-Length: 9999999999999999999\r\n\r\n", 400},
		{"coding twice", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"coding unknown", post + "Transfer-Encoding: gzip\r\n\r\n", 501},
		{"coding list", post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
		{"coding twice in a list", post + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 501},
		{"coding identity", post + "Transfer-Encoding: identity\r\n\r\n", 501},
		{"coding disguised", post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501},
		{"coding quoted", post + "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 501},
		{"coding with vertical tab", post + "Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n", 400},
		{"coding folded", post + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 501},
		{"coding in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"bare LF after a header", "GET / HTTP/1.1\r\nHost: a.test\n\r\n", 400},
		{"bare LF at the end", get + "\n", 400},
		{"bare LF in the request line", "GET / HTTP/1.1\nHost: a.test\r\n\r\n", 400},
		{"bare CR in a header", get + "X-A: a\rb\r\n\r\n", 400},
		{"bare CR before the end", get + "\r\r\n\r\n", 400},
		{"folded line", get + "X-A: a\r\n b\r\n\r\n", 400},
		{"folded first line", "GET / HTTP/1.1\r\n Host: a.test\r\n\r\n", 400},
		{"NUL in a value", get + "X-A: a\x00b\r\n\r\n", 400},
		{"control in a value", get + "X-A: a\x01b\r\n\r\n", 400},
		{"DEL in a value", get + "X-A: a\x7fb\r\n\r\n", 400},
		{"NUL in a name", get + "X\x00A: b\r\n\r\n", 400},
		{"space before the colon", post + "Content-Length : 3\r\n\r\nabc", 400},
		{"tab before the colon", post + "Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", 400},
		{"no colon", get + "nonsense\r\n\r\n", 400},
		{"no name", get + ": value\r\n\r\n", 400},
		{"name above ASCII", get + "X-\xc3\xa9: b\r\n\r\n", 400},
		{"no Host", "GET / HTTP/1.1\r\n\r\n", 400},
		{"Host twice", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400},
		{"Host empty", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400},
		{"Host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
		{"Host with a user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400},
		{"Host list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400},
		{"Host with a bad port", "GET / HTTP/1.1\r\nHost: a:8x\r\n\r\n", 400},
		{"Host with too high a port", "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400},
		{"Host with two ports", "GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n", 400},
		{"Host with a bad address", "GET / HTTP/1.1\r\nHost: [::g]\r\n\r\n", 400},
		{"Host with an IPv4 in brackets", "GET / HTTP/1.1\r\nHost: [1.2.3.4]\r\n\r\n", 400},
		{"Host too long", "GET / HTTP/1.1\r\nHost: " + strings.Repeat("a", 256) + "\r\n\r\n", 400},
		{"no method", " / HTTP/1.1\r\n" + host + "\r\n", 400},
		{"odd method", "GE(T / HTTP/1.1\r\n" + host + "\r\n", 400},
		{"long method", strings.Repeat("M", 40) + " / HTTP/1.1\r\n" + host + "\r\n", 501},
		{"CONNECT", "CONNECT a.test:443 HTTP/1.1\r\n" + host + "\r\n", 405},
		{"TRACE", "TRACE / HTTP/1.1\r\n" + host + "\r\n", 405},
		{"no target", "GET HTTP/1.1\r\n" + host + "\r\n", 400},
		{"two spaces", "GET  / HTTP/1.1\r\n" + host + "\r\n", 400},
		{"space in the target", "GET /a b HTTP/1.1\r\n" + host + "\r\n", 400},
		{"tab in the target", "GET /a\tb HTTP/1.1\r\n" + host + "\r\n", 400},
		{"fragment", "GET /a#b HTTP/1.1\r\n" + host + "\r\n", 400},
		{"bytes above ASCII in the target", "GET /\xc3\xa9 HTTP/1.1\r\n" + host + "\r\n", 400},
		{"relative target", "GET a HTTP/1.1\r\n" + host + "\r\n", 400},
		{"* for GET", "GET * HTTP/1.1\r\n" + host + "\r\n", 400},
		{"other scheme", "GET ftp://a.test/ HTTP/1.1\r\n" + host + "\r\n", 400},
		{"absolute without a host", "GET http:///x HTTP/1.1\r\n" + host + "\r\n", 400},
		{"absolute with a user", "GET http://u@a/x HTTP/1.1\r\n" + host + "\r\n", 400},
		{"bad escape", "GET /%zz HTTP/1.1\r\n" + host + "\r\n", 400},
		{"cut escape", "GET /%4 HTTP/1.1\r\n" + host + "\r\n", 400},
		{"escaped NUL", "GET /%00 HTTP/1.1\r\n" + host + "\r\n", 400},
		{"dot segment", "GET /a/../b HTTP/1.1\r\n" + host + "\r\n", 400},
		{"dot segment at the end", "GET /a/.. HTTP/1.1\r\n" + host + "\r\n", 400},
		{"single dot segment", "GET /a/./b HTTP/1.1\r\n" + host + "\r\n", 400},
		{"dot segment with a parameter", "GET /a/..;/b HTTP/1.1\r\n" + host + "\r\n", 400},
		{"escaped dot segment", "GET /a/%2e%2E/b HTTP/1.1\r\n" + host + "\r\n", 400},
		{"half escaped dot segment", "GET /a/.%2e HTTP/1.1\r\n" + host + "\r\n", 400},
		{"dot segment between escaped slashes", "GET /a%2f..%2fb HTTP/1.1\r\n" + host + "\r\n", 400},
		{"dot segment between backslashes", "GET /a\\..\\b HTTP/1.1\r\n" + host + "\r\n", 400},
		{"double encoding", "GET /%252e%252e/ HTTP/1.1\r\n" + host + "\r\n", 200},
		{"escaped bad UTF-8", "GET /%ff%fe HTTP/1.1\r\n" + host + "\r\n", 200},
		{"bad UTF-8 in the target", "GET /\xff HTTP/1.1\r\n" + host + "\r\n", 400},
		{"NUL in the target", "GET /\x00 HTTP/1.1\r\n" + host + "\r\n", 400},
		{"NUL in the method", "G\x00T / HTTP/1.1\r\n" + host + "\r\n", 400},
		{"dots in names are names", "GET /a..b/...c/.d/x.?../../y HTTP/1.1\r\n" + host + "\r\n", 200},
		{"no version", "GET /\r\n" + host + "\r\n", 400},
		{"lower-case version", "GET / http/1.1\r\n" + host + "\r\n", 400},
		{"version 2", "GET / HTTP/2.0\r\n" + host + "\r\n", 505},
		{"version 1.2", "GET / HTTP/1.2\r\n" + host + "\r\n", 505},
		{"version with a space behind", "GET / HTTP/1.1 \r\n" + host + "\r\n", 400},
		{"empty line first", "\r\n" + get + "\r\n", 400},
		{"TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", 400},
		{"line too long", "GET /" + strings.Repeat("a", 9000) + " HTTP/1.1\r\n" + host + "\r\n", 414},
		{"line far too long", "GET /" + strings.Repeat("a", 20000), 414},
		{"fields too large", get + "X-A: " + strings.Repeat("a", 20000), 431},
		{"fields too many", get + strings.Repeat("A: b\r\n", 128) + "\r\n", 431},
		{"Connection too long", get + "Connection: " + strings.Repeat("a,", 40) + "\r\n\r\n", 400},
		{"Connection odd", get + "Connection: a b\r\n\r\n", 400},
		{"Expect odd", post + "Expect: 200-ok\r\nContent-Length: 3\r\n\r\nabc", 417},
		{"Upgrade twice", get + "Connection: upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n\r\n", 400},

		{"chunk size empty", post + "Transfer-Encoding: chunked\r\n\r\n\r\nabc\r\n0\r\n\r\n", 400},
		{"chunk size not hex", post + "Transfer-Encoding: chunked\r\n\r\ng\r\nabc\r\n0\r\n\r\n", 400},
		{"chunk size with 0x", post + "Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", 400},
		{"chunk size with a sign", post + "Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n", 400},
		{"chunk size below 0", post + "Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n", 400},
		{"chunk size with a space", post + "Transfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n", 400},
		{"chunk size too large", post + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n", 400},
		{"chunk size over 2^63", post + "Transfer-Encoding: chunked\r\n\r\n8000000000000000\r\nabc\r\n0\r\n\r\n", 400},
		{"chunk line with a bare LF", post + "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", 400},
		{"chunk too long", post + "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", 400},
		{"chunk ended by a bare LF", post + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n", 400},
		{"chunk ended by a bare CR", post + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r0\r\n\r\n", 400},
		{"chunk ended by others", post + "Transfer-Encoding: chunked\r\n\r\n3\r\nabcxx0\r\n\r\n", 400},
		{"chunk extension with a bare CR", post + "Transfer-Encoding: chunked\r\n\r\n3;a\rb\r\nabc\r\n0\r\n\r\n", 400},
		{"chunk extension with NUL", post + "Transfer-Encoding: chunked\r\n\r\n3;a\x00\r\nabc\r\n0\r\n\r\n", 400},
		{"chunk extension endless", post + "Transfer-Encoding: chunked\r\n\r\n3;" + strings.Repeat("a", 9000), 400},
		{"trailer malformed", post + "Transfer-Encoding: chunked\r\n\r\n0\r\nX A: 1\r\n\r\n", 400},
		{"trailer folded", post + "Transfer-Encoding: chunked\r\n\r\n0\r\nX-A: 1\r\n 2\r\n\r\n", 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, f.addr)
			c.send(tt.send)
			method, _, _ := strings.Cut(tt.send, " ")
			got := c.read(method)
			if got.StatusCode != tt.want {
				t.Fatalf("got %d %q, want %d", got.StatusCode, got.body, tt.want)
			}
			if tt.want == 200 {
				return
			}
			if !got.Close {
				t.Error("the connection of a refused request is said to go on")
			}
			c.CloseWrite()
			c.wantEnd()
			if tt.want == 405 && got.Header.Get("Allow") == "" {
				t.Error("405 without Allow")
			}
		})
	}
}

func TestTimeouts(t *testing.T) {
	f := start(t, Options{
		HeaderTimeout: 100 * time.Millisecond, BodyTimeout: 100 * time.Millisecond, ResponseTimeout: 300 * time.Millisecond,
		Listeners: []Listener{{Routes: anyRoute, Idle: 100 * time.Millisecond}},
	}, webBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-r.Context().Done()
		}
		io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, "ok")
	}))
	tests := []struct {
		name, send string
		want       int // 0: the end without a word
	}{
		{"nothing", "", 0},
		{"head", "GET / HTTP/1.1\r\nHost:", 408},
		{"small body", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc", 408},
		{"large body", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\nabc", 408},
		{"body that ends in the last bytes", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\nabc", 408},
		{"chunked body", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", 408},
		{"backend", "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n", 504},
		{"between two requests", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 200},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, f.addr)
			c.send(tt.send)
			if tt.want != 0 {
				if got := c.read("GET"); got.StatusCode != tt.want {
					t.Errorf("got %d %q, want %d", got.StatusCode, got.body, tt.want)
				}
			}
			if tt.want != 504 { // the connection goes on, and then is idle
				c.wantEnd()
			}
		})
	}
}
