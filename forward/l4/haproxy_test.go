package l4

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestBetweenHAProxies: HAProxy in front says by its PROXY header who the client is, and HAProxy behind hears
// it from ours, in either version.
func TestBetweenHAProxies(t *testing.T) {
	path, err := exec.LookPath("haproxy")
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/haproxy"); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal("haproxy is not installed (Debian: haproxy), and in CI nothing is skipped")
			}
			t.Skip("haproxy is not installed (Debian: haproxy)")
		}
	}
	for _, version := range []ProxyVersion{Proxy1, Proxy2} {
		t.Run(fmt.Sprint("v", version), func(t *testing.T) { betweenHAProxies(t, path, version) })
	}
}

func betweenHAProxies(t *testing.T, path string, version ProxyVersion) {
	front, behind := nobody(t), nobody(t)
	f := start(t, Options{Listeners: []Listener{{
		Service: "db", AcceptProxy: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, SendProxy: version,
	}}}, behind)
	word := map[ProxyVersion]string{Proxy1: "send-proxy", Proxy2: "send-proxy-v2"}[version]
	config := fmt.Sprintf(`
defaults
	timeout connect 5s
	timeout client 20s
	timeout server 20s
listen front
	mode tcp
	bind %s
	server pharos %s %s
frontend behind
	mode http
	bind %s accept-proxy
	http-request return status 200 content-type text/plain lf-string "%%[src]:%%[src_port]"
`, front, f.addr, word, behind)
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	haproxy := exec.Command(path, "-db", "-f", file)
	haproxy.Stdout, haproxy.Stderr = t.Output(), t.Output()
	if err := haproxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = haproxy.Process.Kill(); _ = haproxy.Wait() })
	ask := func(source string) (said, is string, err error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: 10 * time.Second}
		c, err := d.Dial("tcp", front.String())
		if err != nil {
			return "", "", err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
			return "", "", err
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return "", "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return string(body), c.LocalAddr().String(), err
	}
	until(t, "HAProxy serves", func() bool { _, _, err := ask("127.0.0.1"); return err == nil })
	for i := range 20 {
		said, is, err := ask(fmt.Sprintf("127.0.0.%d", 10+i))
		if err != nil || said != is {
			t.Fatalf("the backend was told %q, the client is %s: %v", said, is, err)
		}
	}
}
