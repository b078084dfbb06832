package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward/porttest"
)

// TestReaderOfOutputGoes: a node whose access log, or log, goes to a pipe goes on when who reads from that has ended.
func TestReaderOfOutputGoes(t *testing.T) {
	t.Parallel()
	dir, port := t.TempDir(), porttest.Free(t)
	file := filepath.Join(dir, "pharos.yaml")
	config := fmt.Sprintf(`
cluster: {wait: 0s, port: %d}
sites: {fra: {location: FRA, nodes: {fra1: 127.0.0.1}}}
services: {web: {check: {tcp: {}}, backends: {fra: ["127.0.0.1:1"]}}}
dns: {listen: "node:%d"}
listeners:
  - bind: "node:%d"
    http: {access_log: "-", routes: [{path: /here, respond: {body: here}}, {service: web}]}
`, porttest.Free(t), porttest.Free(t), port)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("pharos", "run", "--config", file, "--node", "fra1", "--state-dir", dir, "--socket", filepath.Join(dir, "s"), "--log-level", "debug")
	cmd.Stdout, cmd.Stderr = writer, writer
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer cmd.Process.Kill()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	ask := func() bool {
		res, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/here", port))
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == 200
	}
	deadline := time.Now().Add(30 * time.Second)
	for !ask() {
		if time.Now().After(deadline) {
			t.Fatal("it does not serve")
		}
	}
	reader.Close()
	lost := func() float64 {
		return (&forwardBed{t: t, dir: dir}).metric("s", "pharos_l7_access_log_failures_total")
	}
	for lost() == 0 {
		if !ask() || time.Now().After(deadline) {
			t.Fatal("it has ended, or did not miss its reader")
		}
	}
	if !ask() {
		t.Error("it does not serve any more")
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
}
