package main

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"

	"github.com/pharos-lb/pharos/geo"
)

// A server is one program under measurement.
type server struct {
	name string
	addr netip.AddrPort
	args []string
	cmd  *exec.Cmd
	log  bytes.Buffer
}

const records = `$TTL 300
@      IN SOA ns1 root 1 3600 600 86400 60
@      IN NS  ns1
ns1    IN A   127.8.0.1
static IN A   192.0.2.1
`

const pharosConfig = `
cluster: {name: bench, port: 17949, wait: 1s}
sites:
  fra: {location: FRA, nodes: {fra1: 127.8.0.1}}
  iad: {location: IAD, nodes: {iad1: 127.8.0.2}}
  sin: {location: SIN, nodes: {sin1: 127.8.0.3}}
services:
  web:
    policy: [nearest]
    check: {tcp: {}, every: 1h, vip_port: 9}
    backends: {fra: ["127.8.0.1:9"], iad: ["127.8.0.2:9"], sin: ["127.8.0.3:9"]}
    vip: {fra: 192.0.2.10, iad: 192.0.2.20, sin: 192.0.2.30}
zones: {bench.test: {file: zone, names: {www: {service: web}}}}
dns: {listen: "127.8.0.1:5391"}
`

const gdnsdConfig = `
options => { listen => [ 127.8.0.1:5392 ], udp_threads => 1, tcp_threads => 1, run_dir => "%[1]s/run", state_dir => "%[1]s/state", edns_client_subnet => true }
service_types => { }
plugins => { geoip => {
  maps => { world => { geoip2_db => %[1]s/country.mmdb, datacenters => [fra, iad, sin], auto_dc_coords => { fra => [50.03, 8.57], iad => [38.95, -77.46], sin => [1.36, 103.99] } } },
  resources => { web => { map => world, dcmap => { fra => 192.0.2.10, iad => 192.0.2.20, sin => 192.0.2.30 } } } } }
`

// prepare writes both configurations and the shared data.
func prepare(dir, binary string) ([]*server, error) {
	files := map[string]string{
		"pharos.yaml":            pharosConfig,
		"zone":                   records,
		"gdnsd/config":           fmt.Sprintf(gdnsdConfig, dir+"/gdnsd"),
		"gdnsd/zones/bench.test": records + "www IN DYNA geoip!web\n",
	}
	for _, d := range []string{"gdnsd/zones", "gdnsd/run", "gdnsd/state"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	if err := writeCountryData(filepath.Join(dir, "gdnsd/country.mmdb")); err != nil {
		return nil, err
	}
	return []*server{
		{name: "pharos", addr: netip.MustParseAddrPort("127.8.0.1:5391"), args: []string{
			binary, "run", "--config", filepath.Join(dir, "pharos.yaml"), "--node", "fra1",
			"--state-dir", filepath.Join(dir, "state"), "--socket", filepath.Join(dir, "pharos.sock"),
		}},
		{name: "gdnsd", addr: netip.MustParseAddrPort("127.8.0.1:5392"), args: []string{"gdnsd", "-c", filepath.Join(dir, "gdnsd"), "start"}},
	}, nil
}

// writeCountryData rewrites the embedded country data in MaxMind's schema,
// which gdnsd reads.
func writeCountryData(file string) error {
	db, err := geo.Embedded()
	if err != nil {
		return err
	}
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "GeoIP2-City", RecordSize: 28, IncludeReservedNetworks: true, DisableIPv4Aliasing: true})
	if err != nil {
		return err
	}
	for prefix, place := range db.All() {
		if place.Country == "" {
			continue
		}
		record := mmdbtype.Map{
			"country":   mmdbtype.Map{"iso_code": mmdbtype.String(place.Country)},
			"continent": mmdbtype.Map{"code": mmdbtype.String(place.Continent)},
			"location":  mmdbtype.Map{"latitude": mmdbtype.Float64(place.Point.Lat), "longitude": mmdbtype.Float64(place.Point.Lon)},
		}
		ip := prefix.Addr().AsSlice()
		if err := tree.Insert(&net.IPNet{IP: ip, Mask: net.CIDRMask(prefix.Bits(), 8*len(ip))}, record); err != nil {
			return fmt.Errorf("write country data: %s: %w", prefix, err)
		}
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = tree.WriteTo(f)
	return err
}

// startUp runs the server on the first core and returns how long it took to
// answer the first query.
func (s *server) startUp() (time.Duration, error) {
	s.cmd = exec.Command("taskset", append([]string{"-c", "0"}, s.args...)...)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	start := time.Now()
	if err := s.cmd.Start(); err != nil {
		return 0, err
	}
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(s.addr))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	buf := make([]byte, 4096)
	for time.Since(start) < 30*time.Second {
		conn.Write(buf[:question(buf, 1, "www", true)]) // refused until it listens
		conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if n, err := conn.Read(buf); err == nil && wantAnswer(buf[:n]) == nil {
			return time.Since(start), nil
		}
	}
	s.stop()
	return 0, fmt.Errorf("it does not answer:\n%s", s.log.String())
}

func (s *server) stop() {
	s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	s.cmd.Wait()                          // how it ends is not measured
}

// cpuTime is what the process has used in user and system mode (proc(5), stat, in ticks of 10 ms).
func (s *server) cpuTime() (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("read cpu time: %q", data)
	}
	return time.Duration(user+system) * 10 * time.Millisecond, nil
}

// memory is the resident set in KiB.
func (s *server) memory() int {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ := strconv.Atoi(strings.Fields(rest)[0])
			return kb
		}
	}
	return 0
}
