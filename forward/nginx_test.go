package forward

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRingIsNginx asks a real nginx where it sends keys with `hash KEY consistent`.
func TestRingIsNginx(t *testing.T) {
	path, err := exec.LookPath("nginx")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("nginx is not installed (Debian: nginx), and in CI nothing is skipped")
		}
		t.Skip("nginx is not installed (Debian: nginx)")
	}
	weights := []uint64{1, 3, 1, 2, 5}
	var all []share
	var servers strings.Builder
	for _, weight := range weights {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
		go func() { _ = s.Serve(l) }()
		t.Cleanup(func() { s.Close() })
		all = append(all, share{l.Addr().(*net.TCPAddr).AddrPort(), weight})
		fmt.Fprintf(&servers, "server %s weight=%d; ", l.Addr(), weight)
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	config := fmt.Sprintf(`
daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/errors;
events {}
http {
	access_log off; client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
	upstream pool { hash $arg_key consistent; %[2]s }
	server { listen unix:%[3]s; location / { proxy_pass http://pool; add_header X-To $upstream_addr; } }
}`, dir, servers.String(), socket)
	if err := os.WriteFile(filepath.Join(dir, "conf"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	nginx := exec.Command(path, "-c", filepath.Join(dir, "conf"), "-e", filepath.Join(dir, "errors"))
	if err := nginx.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nginx.Process.Kill(); _ = nginx.Wait() })
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	ask := func(key string) (netip.AddrPort, error) {
		resp, err := client.Get("http://nginx/?key=" + key)
		if err != nil {
			return netip.AddrPort{}, err
		}
		resp.Body.Close()
		return netip.ParseAddrPort(resp.Header.Get("X-To"))
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := ask("first"); err == nil {
			break
		} else if time.Now().After(deadline) {
			log, _ := os.ReadFile(filepath.Join(dir, "errors"))
			t.Fatalf("nginx does not serve: %v\n%s", err, log)
		}
	}
	table := tables{ring: true, points: ring(all)}
	hit := make([]int, len(all))
	for i := range 2000 {
		key := fmt.Sprintf("key-%d", i*7919)
		got, err := ask(key)
		if err != nil {
			t.Fatal(err)
		}
		mine := table.find(Key{Kind: KeyPath, crc: true}.Bytes([]byte(key)), 0)
		hit[mine]++
		if all[mine].address != got {
			t.Fatalf("key %q: nginx sends it to %s, we to %s", key, got, all[mine].address)
		}
	}
	for i, n := range hit {
		if n == 0 {
			t.Errorf("backend %d has no key of 2000", i)
		}
	}
}
