//go:build browser

package l7

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"github.com/pharos-lb/pharos/forward/l7/certtest"
	"github.com/pharos-lb/pharos/forward/porttest"
)

// `make browser` plays these tests; they need Debian's chromium, which is too large to be installed for every change.

// pageBackend serves testdata/browser.html and what it asks for; results gets what it found.
func pageBackend(t *testing.T, results chan map[string]string) netip.AddrPort {
	t.Helper()
	big := make([]byte, 2<<20)
	for i := range big {
		big[i] = byte(i % 251)
	}
	next, left := make(chan struct{}, 3), make(chan struct{}, 1)
	mux := http.NewServeMux()
	for path, file := range map[string]string{"/{$}": "testdata/browser.html", "/altsvc": "testdata/altsvc.html"} {
		page, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.Write(page)
		})
	}
	mux.HandleFunc("/big", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(big)))
		w.Write(big)
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body) // net/http does not echo on the way
		w.Write(b)
	})
	mux.HandleFunc("/say", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.RawQuery) })
	mux.HandleFunc("/none", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("/next", func(http.ResponseWriter, *http.Request) { next <- struct{}{} })
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for n := range 3 {
			fmt.Fprintf(w, "data: event %d\n\n", n)
			w.(http.Flusher).Flush()
			select {
			case <-next:
			case <-r.Context().Done():
				return
			}
		}
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			w.Write(big[:1000])
			w.(http.Flusher).Flush()
			time.Sleep(time.Millisecond)
		}
		left <- struct{}{}
	})
	mux.HandleFunc("/left", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-left:
			io.WriteString(w, "left")
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100000")
		w.Write(big[:50000])
		panic(http.ErrAbortHandler)
	})
	mux.Handle("/socket", websocket.Server{Handler: func(c *websocket.Conn) {
		defer c.Close() // in order
		for {
			var text string
			var data []byte
			got := &anyMessage{&text, &data}
			kind, err := got.receive(c)
			if err != nil {
				return
			}
			if kind == websocket.TextFrame {
				err = websocket.Message.Send(c, text)
			} else {
				err = websocket.Message.Send(c, data)
			}
			if err != nil {
				return
			}
		}
	}})
	mux.HandleFunc("/result", func(_ http.ResponseWriter, r *http.Request) {
		found := make(map[string]string)
		if err := json.NewDecoder(r.Body).Decode(&found); err == nil {
			results <- found
		}
	})
	return webBackend(t, mux.ServeHTTP)
}

// An anyMessage takes a message of either kind.
type anyMessage struct {
	text *string
	data *[]byte
}

func (a *anyMessage) receive(c *websocket.Conn) (kind byte, err error) {
	codec := websocket.Codec{Unmarshal: func(data []byte, payload byte, _ any) error {
		kind = payload
		*a.text, *a.data = string(data), bytes.Clone(data)
		return nil
	}}
	return kind, codec.Receive(c, nil)
}

// browse has a browser open a page until the function that is returned is called, which gives the page as it is then.
func browse(t *testing.T, url string, flags ...string) (end func()) {
	t.Helper()
	cmd := browser(t, context.Background(), append(flags, url)...)
	cmd.Args = append(cmd.Args, "--remote-debugging-port=0") // otherwise it ends when the page has been loaded
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it starts processes of its own
		cmd.Wait()
		if t.Failed() {
			t.Logf("the browser: %s", out.Bytes())
		}
	})
	t.Cleanup(end)
	return end
}

// browser is a command of one without a window, in a process group of its own.
func browser(t *testing.T, ctx context.Context, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("Debian's chromium is needed: %v", err)
	}
	dir, err := os.MkdirTemp("", "browser")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	cmd := exec.CommandContext(ctx, path, append([]string{
		"--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps",
		"--no-proxy-server", "--host-resolver-rules=MAP a.test 127.0.0.1", "--user-data-dir=" + dir,
	}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_CACHE_HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	return cmd
}

// spki is what browsers know a certificate's key by.
func spki(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(certificate.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// A logged is a line of the access log.
type logged struct{ Path, Method, Protocol, Trouble string }

// readLog reads an access log, of which lines may still be on their way.
func readLog(t *testing.T, file string) (all []logged) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		var l logged
		if json.Unmarshal(lines.Bytes(), &l) == nil {
			all = append(all, l)
		}
	}
	return all
}

// TestBrowser has Chromium do what web applications do, over every version of HTTP.
func TestBrowser(t *testing.T) {
	for _, test := range []struct {
		name, flags string
		plain       bool
		navigation  string
		protocol    string // in the access log, of the page
		socket      string // the same of the WebSocket
	}{
		{"h1", "", true, "http/1.1", "HTTP/1.1", "HTTP/1.1"},
		{"TLS h1", "--disable-http2 --disable-quic", false, "http/1.1", "HTTP/1.1", "HTTP/1.1"},
		{"h2", "--disable-quic", false, "h2", "HTTP/2", "HTTP/2"},
		{"h3", "--origin-to-force-quic-on=ADDRESS", false, "h3", "HTTP/3", "HTTP/1.1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ca, results := certtest.New(t), make(chan map[string]string, 1)
			logs := &AccessLog{File: filepath.Join(t.TempDir(), "log"), Query: true}
			routes := []Route{{Service: "web"}, {Path: "/down", Service: "down"}}
			tls := secure(ca, "a.test")
			f := start(t, Options{Listeners: []Listener{
				{Routes: routes, AccessLog: logs},
				{Routes: routes, AccessLog: logs, TLS: tls, HTTP3: true, Address: netip.MustParseAddrPort(fmt.Sprintf("127.0.0.1:%d", porttest.Free(t)))},
			}}, pageBackend(t, results))
			scheme, port := "https", f.Addrs()[1].Port()
			if test.plain {
				scheme, port = "http", f.Addrs()[0].Port()
			}
			address := fmt.Sprintf("a.test:%d", port)
			flags := append(strings.Fields(strings.ReplaceAll(test.flags, "ADDRESS", address)),
				"--ignore-certificate-errors-spki-list="+spki(t, tls.Certificates[0].Certificate))
			end := browse(t, scheme+"://"+address+"/", flags...)
			select {
			case found := <-results:
				for name, got := range found {
					want := "ok"
					if name == "navigation" {
						want = test.navigation
					}
					if got != want {
						t.Errorf("%s: %s, want %s", name, got, want)
					}
				}
				if len(found) < 10 {
					t.Errorf("%d results: %v", len(found), found)
				}
			case <-time.After(2 * time.Minute):
				t.Errorf("the page tells nothing; the access log: %v", readLog(t, logs.File))
			}
			end()
			f.stop() // so that all lines are there
			seen := make(map[string]string)
			for _, l := range readLog(t, logs.File) {
				if path, _, _ := strings.Cut(l.Path, "?"); seen[path] == "" {
					seen[path] = l.Protocol
				}
			}
			if got := seen["/"]; got != test.protocol {
				t.Errorf("the page went over %s, want %s", got, test.protocol)
			}
			if got := seen["/socket"]; got != test.socket {
				t.Errorf("the WebSocket went over %s, want %s: %v", got, test.socket, readLog(t, logs.File))
			}
		})
	}
}

// TestBrowserAltSvc: Chromium begins with HTTP/2, and goes to HTTP/3 by what our Alt-Svc says.
func TestBrowserAltSvc(t *testing.T) {
	ca, results := certtest.New(t), make(chan map[string]string, 1)
	logs := &AccessLog{File: filepath.Join(t.TempDir(), "log"), Query: true}
	tls := secure(ca, "a.test")
	f := start(t, Options{Listeners: []Listener{{
		Routes: anyRoute, AccessLog: logs, TLS: tls, HTTP3: true,
		Address: netip.MustParseAddrPort(fmt.Sprintf("127.0.0.1:%d", porttest.Free(t))),
	}}}, pageBackend(t, results))
	end := browse(t, fmt.Sprintf("https://a.test:%d/altsvc", f.Addrs()[0].Port()),
		// Another port than ours: all that it does is to make the browser trust a root over QUIC that is not known to the public.
		"--origin-to-force-quic-on=a.test:1",
		"--ignore-certificate-errors-spki-list="+spki(t, tls.Certificates[0].Certificate))
	select {
	case found := <-results:
		if got := fmt.Sprint(found); got != "map[all:ok echo:h3 last:h3 navigation:h2]" {
			t.Errorf("it found %s", got)
		}
	case <-time.After(2 * time.Minute):
		t.Error("the page tells nothing")
	}
	end()
	f.stop() // so that all lines are there
	all := readLog(t, logs.File)
	protocols := make(map[string]string)
	for _, l := range all {
		path, _, _ := strings.Cut(l.Path, "?")
		protocols[path] = l.Protocol // the last
	}
	if protocols["/altsvc"] != "HTTP/2" || protocols["/say"] != "HTTP/3" || protocols["/echo"] != "HTTP/3" {
		t.Errorf("the access log: %v", all)
	}
}

// TestBrowserShowsErrors: who opens a page that cannot be had sees why.
func TestBrowserShowsErrors(t *testing.T) {
	ca := certtest.New(t)
	tls := secure(ca, "a.test")
	f := start(t, Options{Listeners: []Listener{{Routes: []Route{{Path: "/down", Service: "down"}}, TLS: tls, HTTP3: true}}})
	port := f.Addrs()[0].Port()
	for path, want := range map[string]string{"/down": "503", "/elsewhere": "404"} {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		cmd := browser(t, ctx, "--dump-dom", "--ignore-certificate-errors-spki-list="+spki(t, tls.Certificates[0].Certificate),
			fmt.Sprintf("https://a.test:%d%s", port, path))
		dom, err := cmd.Output()
		cancel()
		if cmd.Process != nil {
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
		if err != nil || !strings.Contains(string(dom), "<h1>"+want) {
			t.Errorf("%s: %v: %s", path, err, dom)
		}
	}
}
