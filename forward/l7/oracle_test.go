package l7

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward/porttest"
)

// This file holds what goes upstream to three other readers of HTTP: whatever is let
// through here, nginx, HAProxy and net/http understand as the same request, one and only one.

// A reader is a backend that says what it has understood.
type reader struct {
	name    string
	address netip.AddrPort
	// count returns how many requests it has read so far.
	count func(t *testing.T) int
}

// mayRefuse reports whether a reader is known to refuse a request that we let through,
// as a whole and with the right end: nginx takes neither OPTIONS * nor methods in small letters.
func mayRefuse(reader, request, target string) bool {
	method, _, _ := strings.Cut(request, " ")
	return reader == "nginx" && (target == "*" || method != strings.ToUpper(method))
}

// launch runs a server of Debian's until the test ends.
func launch(t *testing.T, port, program string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is needed: %v", program, err)
		}
		t.Skipf("%s is not installed: apt-get install %s", program, program)
	}
	var out strings.Builder
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	until(t, program+" listens: "+out.String(), func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// askPlain asks a reader directly.
func askPlain(t *testing.T, address, path string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	res, err := client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func readers(t *testing.T) []reader {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	nginx, haproxy := strconv.Itoa(porttest.Free(t)), strconv.Itoa(porttest.Free(t))
	launch(t, nginx, "nginx", "-p", dir, "-e", filepath.Join(dir, "error.log"), "-c", write("nginx.conf", `
daemon off; master_process off; pid `+dir+`/nginx.pid;
events { worker_connections 256; }
http {
  client_body_temp_path `+dir+`/body; proxy_temp_path `+dir+`/proxy; fastcgi_temp_path `+dir+`/f; uwsgi_temp_path `+dir+`/u; scgi_temp_path `+dir+`/s;
  keepalive_requests 1000000; merge_slashes off; default_type text/plain;
  server { # reads the whole request before it asks the second, which says what the first has understood
    listen 127.0.0.1:`+nginx+`; access_log `+dir+`/count.log;
    location / {
      proxy_method GET; proxy_pass http://unix:`+dir+`/echo:/;
      proxy_set_header X-Seen "$request_method|$request_uri|$http_host|$http_x_mark"; proxy_set_header Expect "";
    }
  }
  server { listen unix:`+dir+`/echo; access_log off; location / { return 200 "$http_x_seen"; } }
}`))
	launch(t, haproxy, "haproxy", "-db", "-f", write("haproxy.cfg", `
global
  tune.http.logurilen 16384
defaults
  mode http
  timeout client 30s
  timeout server 30s
  timeout connect 5s
  option http-buffer-request
frontend f
  bind 127.0.0.1:`+haproxy+`
  http-request return status 200 content-type text/plain lf-string "%rt" if { path /count-requests }
  http-request return status 200 content-type text/plain lf-string "%[method]|%[capture.req.uri]|%[req.hdr(host)]|%[req.hdr(x-mark)]"
`))
	var plain atomic.Int64
	var asked [2]int // how often the readers were asked for their counts
	asking := func(n *int) int { *n++; return *n }
	standard := webBackend(t, func(w http.ResponseWriter, r *http.Request) {
		n := plain.Add(1)
		io.Copy(io.Discard, r.Body)
		if r.RequestURI == "/count-requests" {
			fmt.Fprint(w, n)
			return
		}
		fmt.Fprintf(w, "%s|%s|%s|%s", r.Method, r.RequestURI, r.Host, r.Header.Get("X-Mark"))
	})
	return []reader{
		{"nginx", netip.MustParseAddrPort("127.0.0.1:" + nginx), func(t *testing.T) int {
			lines, err := os.ReadFile(filepath.Join(dir, "count.log"))
			if err != nil {
				t.Fatal(err)
			}
			return strings.Count(string(lines), "\n")
		}},
		{"haproxy", netip.MustParseAddrPort("127.0.0.1:" + haproxy), func(t *testing.T) int {
			return number(t, askPlain(t, "127.0.0.1:"+haproxy, "/count-requests")) - asking(&asked[0])
		}},
		{"net/http", standard, func(t *testing.T) int {
			return number(t, askPlain(t, standard.String(), "/count-requests")) - asking(&asked[1])
		}},
	}
}

// understood sends bytes on a new connection and returns what was made of them: of
// each answer what the reader understood, or the status that somebody refused with.
func understood(t *testing.T, addr string, sent []byte) (all []string, forwarded int) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write(sent); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	for {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return all, forwarded
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatalf("%q: %v", sent, err)
		}
		switch {
		case res.Header.Get("Server") == DefaultServerName:
			all = append(all, fmt.Sprintf("refused here with %d", res.StatusCode))
			continue
		case res.StatusCode < 200:
			continue
		case res.StatusCode != 200:
			all = append(all, "refused by the reader")
		default:
			all = append(all, strings.ReplaceAll(string(body), addr, "where it came in"))
		}
		forwarded++
	}
}

// The pieces that requests are made of.
var (
	oddMethods = []string{"GET", "GET", "POST", "PUT", "OPTIONS", "PURGE", "get", "G\x00T", "POST\t", ""}
	oddTargets = []string{
		"/", "/", "/a?b=c", "/a/./b", "/a/../b", "/..", "/%2e%2e/x", "/%2E/", "/.%2e", "/a%2fb", "/a%2Fb", "/a%5cb", "/a\\b", "//x//y", "/%00", "/%zz", "/%",
		"/%25%32%65", "/%252e%252e/", "/\xc3\xa9", "/%c3%28", "/%ff%fe", "/a;b=c/..;/d", "/?a=%00", "/?../..", "/?a=\"<>", "/a|b", "/a^b`{}", "http://a.test/x",
		"http://other.test:80/x", "https://a.test/", "http://a.test?q", "ftp://a/", "/a b", "/a\tb", "/a#b", "*", "a", "", "/...", "/.../", "/a//../b", "/%2f..%2f", "/..%2f", "/a/%2e",
		"/" + strings.Repeat("x/", 500), "/?" + strings.Repeat("q&", 1000),
	}
	oddVersions = []string{"HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1", "HTTP/1.1 ", "HTTP/01.1", ""}
	oddHosts    = []string{"Host: a.test", "Host: a.test", "Host: A.test:80", "Host: a.test\r\nHost: b", "Host:a", "Host : a", "", "Host: ", "Host: a b", "Host: a,b", "Host: [::1]", "Host: a.test.", "host: a"}
	oddFields   = []string{
		"X-Mark: 1", "X-Mark:2", "x-mark: \t3 \t", "X-Mark: a\r\n b", "X-Mark: a\rb", "X-Mark: a\x00b", "X_Mark: 1", "X-Mark: caf\xc3\xa9", "X-Mark: \xff\xfe", "X-Mark", ": x", "X Mark: 1",
		"Connection: close", "Connection: keep-alive", "Connection: X-Mark", "Connection: Content-Length", "Connection: transfer-encoding, host", "Upgrade: h2c", "Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA",
		"TE: trailers", "Trailer: X-T", "Expect: 100-continue", "Expect: x", "Keep-Alive: 5", "Proxy-Connection: keep-alive", "Content-Encoding: gzip", "X-HTTP-Method-Override: PUT",
		"X-Forwarded-For: 1.2.3.4", "Forwarded: for=x", "X-Original-URL: /evil", "Content-Length\x0b: 3",
	}
	oddFraming = []string{
		"\r\n", "\r\n", "Content-Length: 3\r\n\r\nabc", "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", "Content-Length: 3\r\nContent-Length: 30\r\n\r\nabc",
		"Content-Length: 3, 3\r\n\r\nabc", "Content-Length: +3\r\n\r\nabc", "Content-Length: 03\r\n\r\nabc", "Content-Length: 0x3\r\n\r\nabc", "Content-Length: -0\r\n\r\n", "Content-Length: 3 \r\n\r\nabc",
		"content-length:\t3\r\n\r\nabc", "Content-Length: 0\r\n\r\n", "Content_Length: 3\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
		"Transfer-Encoding: chunked\r\n\r\n3;a=\"b\r\n\"\r\nabc\r\n0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n3;ext\r\nabc\r\n0\r\nX-Trailer: 1\r\nContent-Length: 5\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n0003\r\nabc\r\n000\r\n\r\n",
		"Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n", "Transfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n100000000000000003\r\nabc\r\n0\r\n\r\n",
		"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding: identity\r\n\r\n", "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
		"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "Transfer_Encoding: chunked\r\n\r\n",
		"Transfer-Encoding: chunked\r\n\r\n3\r\nabcGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n", "\n", "X: y\n\r\n",
	}
)

// TestReadersAgree: see above. A second request follows on every connection, so that one
// that is read as less or more than itself shows.
func TestReadersAgree(t *testing.T) {
	all := readers(t)
	fixtures, before, answered := make([]*fixture, len(all)), make([]int, len(all)), make([]int, len(all))
	for i, r := range all {
		fixtures[i] = start(t, Options{HeaderTimeout: time.Second, BodyTimeout: time.Second}, r.address)
		before[i] = r.count(t)
	}
	check := func(request, target string) {
		t.Helper()
		bytes := []byte(request + "GET /marker HTTP/1.1\r\nHost: marker.test\r\nX-Mark: end\r\nConnection: close\r\n\r\n")
		var want []string
		for i := len(all) - 1; i >= 0; i-- {
			got, n := understood(t, fixtures[i].addr, bytes)
			answered[i] += n
			if want == nil {
				want = got
				for _, w := range want {
					if strings.Contains(w, "smuggled") {
						t.Errorf("%q\nwas read as %q", request, got)
					}
				}
				continue
			}
			if len(got) > 0 && got[0] == "refused by the reader" && mayRefuse(all[i].name, request, target) {
				continue
			}
			// A reader that answers before it has the body, or ends the connection, leaves less to compare.
			from := 0
			if target == "*" && strings.HasPrefix(request, "OPTIONS ") {
				from = 1 // net/http answers it by itself, and HAProxy has no URI for it: what follows must be the same
			}
			if n := min(len(got), len(want)); n == 0 || !slices.Equal(got[from:n], want[from:n]) {
				t.Errorf("%q\n%s understood %q\n%s understood %q", request, all[i].name, got, all[len(all)-1].name, want)
			}
		}
	}
	const fine = "GET / HTTP/1.1\r\nHost: a.test\r\n"
	for _, target := range oddTargets {
		check("GET "+target+" HTTP/1.1\r\nHost: a.test\r\n\r\n", target)
	}
	check("OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n", "*")
	check("OPTIONS * HTTP/1.0\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc", "*")
	for _, framing := range oddFraming {
		check("POST / HTTP/1.1\r\nHost: a.test\r\n"+framing, "/")
		check(fine+framing, "/")
	}
	for _, field := range oddFields {
		check(fine+field+"\r\n\r\n", "/")
	}
	rng := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	pick := func(from []string) string { return from[rng.IntN(len(from))] }
	for range 150 {
		target := pick(oddTargets)
		request := pick(oddMethods) + " " + target + " " + pick(oddVersions) + "\r\n" + pick(oddHosts) + "\r\n"
		for range rng.IntN(3) {
			// Of two marks readers show one or the other.
			if field := pick(oddFields); !strings.Contains(strings.ToLower(field), "mark") || !strings.Contains(strings.ToLower(request), "mark") {
				request += field + "\r\n"
			}
		}
		check(request+pick(oddFraming), target)
	}
	for i, r := range all {
		sent := 0
		for _, b := range fixtures[i].registry.Snapshot() {
			sent += int(b.Leases)
		}
		if got := r.count(t) - before[i]; got > sent || got < answered[i] {
			t.Errorf("%s read %d requests: %d were sent, %d answered", r.name, got, sent, answered[i])
		}
		if answered[i] < 100 {
			t.Errorf("%s: only %d requests got through, nothing was tested", r.name, answered[i])
		}
	}
}
