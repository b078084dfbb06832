package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/pharos-lb/pharos/bench/rig"
)

// A server is one proxy under measurement, or what is asked without one.
type server struct {
	name    string
	tcp     netip.AddrPort
	udp     netip.AddrPort // invalid = does not do UDP
	oneShot netip.AddrPort
	command []string // nil = it is no program of its own
	part    *server  // whose program it is
	process *rig.Process
	rows    map[string]*rig.Figures
}

const (
	backendTCP = "127.9.0.9:9001"
	backendUDP = "127.9.0.9:9001"
)

const pharosConfig = `
cluster: {name: bench, port: 17950, wait: 0s}
sites: {fra: {location: FRA, nodes: {fra1: 127.9.0.1}}}
services:
  tcp: {check: {tcp: {}, every: 1h}, backends: {fra: ["127.9.0.9:9001"]}, vip: {fra: 127.9.0.1}}
%s
dns: {listen: "127.9.0.1:5391"}
listeners:
  - {bind: "127.9.0.1:7001", tcp: {service: tcp}}
%s
`

const haproxyConfig = `
global
  nbthread 1
  maxconn %d
  maxpipes 250
  tune.pipesize 1048576
defaults
  mode tcp
  timeout connect 5s
  timeout client 10m
  timeout server 10m
%s
listen tcp
  bind 127.9.0.%d:7001 backlog 4096
  server a 127.9.0.9:9001
`

// haproxySplice has it splice whatever comes, as is advised for bulk: splice-auto finds nothing here that it takes for a stream. Its pipes are as
// large as ours.
const haproxySplice = "  option splice-request\n  option splice-response"

const nginxConfig = `
daemon off;
worker_processes 1;
worker_rlimit_nofile %[2]d;
error_log stderr error;
pid %[1]s/nginx.pid;
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
events { worker_connections %[3]d; }
stream {
  proxy_timeout 10m;
  server { listen 127.9.0.4:7001 backlog=4096; proxy_pass 127.9.0.9:9001; }
  server { listen 127.9.0.4:7002 udp reuseport; proxy_timeout 30s; proxy_pass 127.9.0.9:9001; }
  server { listen 127.9.0.4:7003 udp reuseport; proxy_timeout 5s; proxy_responses 1; proxy_pass 127.9.0.9:9001; }
}
`

// prepare writes the configurations for as many files as one process may open.
// Peers that are not installed are left out with a word.
func prepare(dir, binary string, files int) ([]*server, error) {
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	texts := map[string]string{
		"haproxy.cfg": fmt.Sprintf(haproxyConfig, files/2-700, "", 2),
		"splice.cfg":  fmt.Sprintf(haproxyConfig, files/2-700, haproxySplice, 3),
		"nginx.conf":  fmt.Sprintf(nginxConfig, dir, files, files-100),
		"pharos.yaml": fmt.Sprintf(pharosConfig, pharosUDPServices, pharosUDPListeners),
	}
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	at := func(host byte, port uint16) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 9, 0, host}), port)
	}
	all := []*server{
		{name: "no proxy", udp: netip.MustParseAddrPort(backendUDP)},
		{
			name: "pharos", tcp: at(1, 7001),
			command: []string{binary, "run", "--config", dir + "/pharos.yaml", "--node", "fra1", "--state-dir", dir + "/state", "--socket", dir + "/pharos.sock"},
		},
		{name: "pharos, offload: kernel", udp: at(1, 7004)},
		{name: "HAProxy", tcp: at(2, 7001), command: []string{"haproxy", "-f", dir + "/haproxy.cfg", "-db"}},
		{name: "HAProxy, splice", tcp: at(3, 7001), command: []string{"haproxy", "-f", dir + "/splice.cfg", "-db"}},
		{name: "nginx stream", tcp: at(4, 7001), udp: at(4, 7002), oneShot: at(4, 7003), command: []string{"nginx", "-c", dir + "/nginx.conf"}},
	}
	all[1].udp, all[1].oneShot = at(1, 7002), at(1, 7003)
	all[2].part = all[1]
	var out []*server
	for _, s := range all {
		if s.command != nil {
			if _, err := exec.LookPath(s.command[0]); err != nil {
				fmt.Fprintf(os.Stderr, "%s is left out: %v\n", s.name, err)
				continue
			}
		}
		s.rows = make(map[string]*rig.Figures)
		out = append(out, s)
	}
	return out, nil
}

// start runs the server and waits until it forwards.
func (s *server) start() error {
	p, err := rig.Start(rig.ServerCore, s.command[0], s.command[1:]...)
	if err != nil {
		return err
	}
	s.process = p
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if err := s.try(); err == nil {
			return nil
		} else if time.Now().After(deadline) || p.Exited() {
			p.Stop()
			return fmt.Errorf("%w\n%s", err, strings.TrimSpace(p.Log()))
		}
	}
}

func (s *server) try() error {
	c, err := net.DialTimeout("tcp", s.tcp.String(), time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	return exchange(c, make([]byte, replySize))
}

// cpu returns the time that the server has used; the backend itself has none of its own.
func (s *server) cpu() (time.Duration, error) {
	switch {
	case s.part != nil:
		return s.part.cpu()
	case s.process == nil:
		return 0, nil
	}
	return s.process.CPU()
}

// add keeps a figure.
func (s *server) add(what string, v float64) {
	if s.rows[what] == nil {
		s.rows[what] = new(rig.Figures)
	}
	s.rows[what].Add(v)
}
