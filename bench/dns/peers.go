package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/pharos-lb/pharos/bench/rig"
)

// A peer is one server.
type peer struct {
	name   string
	addr   netip.AddrPort
	args   []string
	about  []string // has the program say its version
	steers bool
	cores  string // that it may use; the server's alone by default
}

func peers(dir, pharos string) []*peer {
	at := func(port int) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr("127.8.0.1"), uint16(port))
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	return []*peer{
		{name: "pharos", addr: at(5391), args: []string{
			pharos, "run", "--config", in("pharos.yaml"), "--node", "fra1", "--state-dir", in("state"), "--socket", in("pharos.sock"),
		}, steers: true},
		{name: "gdnsd", addr: at(5392), args: []string{"gdnsd", "-c", in("gdnsd"), "start"}, about: []string{"version"}, steers: true},
		{name: "Knot", addr: at(5393), args: []string{"knotd", "-c", in("knot/knot.conf")}, about: []string{"-V"}, steers: true},
		{name: "Knot without geo", addr: at(5398), args: []string{"knotd", "-c", in("knot/plain/knot.conf")}},
		{name: "NSD", addr: at(5394), args: []string{"nsd", "-d", "-c", in("nsd/nsd.conf")}, about: []string{"-v"}},
		{name: "PowerDNS", addr: at(5395), args: []string{"pdns_server", "--config-dir=" + in("pdns")}, about: []string{"--version"}},
		// BIND knows addresses of interfaces only.
		{name: "BIND", addr: netip.MustParseAddrPort("127.0.0.1:5396"), args: []string{"named", "-g", "-n", "1", "-c", in("bind/named.conf")}, about: []string{"-v"}},
		{name: "CoreDNS", addr: at(5397), args: []string{coreDNS(), "-conf", in("Corefile"), "-quiet"}, about: []string{"-version"}},
	}
}

// installed reports whether the program is here.
func (p *peer) installed() bool {
	_, err := exec.LookPath(p.args[0])
	return err == nil
}

// numbers is a version in what programs say of themselves.
var numbers = regexp.MustCompile(`[0-9]+(\.[0-9]+)+`)

// version is the program's, "" if it says none.
func (p *peer) version() string {
	if p.about == nil {
		return ""
	}
	said, _ := exec.Command(p.args[0], p.about...).CombinedOutput() // some end as if it were a mistake to ask
	return string(numbers.Find(said))
}

// start runs the server and waits until it answers every kind of name that it is asked for.
func (p *peer) start() (*result, error) {
	r := &result{
		peer: p, cpu: map[string]*rig.Figures{}, rate: map[string]*rig.Figures{},
		p50: map[string]*rig.Figures{}, p99: map[string]*rig.Figures{},
	}
	var err error
	start := time.Now()
	if r.process, err = rig.StartOn(cmp.Or(p.cores, strconv.Itoa(rig.ServerCore)), p.args[0], p.args[1:]...); err != nil {
		return nil, err
	}
	kind := byte('s')
	if p.steers {
		kind = 'g'
	}
	for time.Since(start) < 60*time.Second && !r.process.Exited() {
		if answer, err := p.ask(label(kind, 0), []byte{8, 8, 8}, 5*time.Millisecond); err == nil && wantAnswer(answer) == nil {
			r.loading = time.Since(start)
			r.idle, err = r.process.Memory()
			return r, err
		}
		time.Sleep(time.Millisecond) // refused at once while nobody listens
	}
	r.process.Stop()
	return nil, fmt.Errorf("it does not answer:\n%s", r.process.Log())
}

// ask sends one query over UDP.
func (p *peer) ask(label string, subnet []byte, patience time.Duration) ([]byte, error) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(p.addr))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	buf := make([]byte, 4096)
	if _, err := conn.Write(question(buf, 1, []byte(label), subnet)); err != nil {
		return nil, err
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	n, err := conn.Read(buf)
	return buf[:n], err
}

// agree makes sure that the servers do the same work: the same address for the
// same name and client.
func agree(results []*result) error {
	random := rand.New(rand.NewPCG(1, 2))
	var errs []error
	for range 300 {
		i := random.IntN(names)
		subnet := []byte{byte(1 + random.IntN(222)), byte(random.IntN(256)), byte(random.IntN(256))}
		for _, kind := range []byte{'s', 'g'} {
			want, by := []byte(nil), ""
			for _, r := range results {
				if kind == 'g' && !r.peer.steers {
					continue
				}
				answer, err := r.peer.ask(label(kind, i), subnet, time.Second)
				if err == nil {
					err = wantAnswer(answer)
				}
				if err != nil {
					return fmt.Errorf("%s: %w", r.peer.name, err)
				}
				got := address(answer)
				if want == nil {
					want, by = got, r.peer.name
				}
				if !bytes.Equal(got, want) {
					errs = append(errs, fmt.Errorf("%s for %v: %s answers %v, %s %v", label(kind, i), subnet, by, want, r.peer.name, got))
				}
			}
		}
	}
	if len(errs) > 5 {
		errs = append(errs[:5], fmt.Errorf("and %d more", len(errs)-5))
	}
	return errors.Join(errs...)
}

// address is the data of the first answer, an A record behind the question.
func address(answer []byte) []byte {
	at := skipName(answer, skipName(answer, 12)+4) + 10 // the rest of the question, then of the record
	if len(answer) < at+4 {
		return nil
	}
	return answer[at : at+4]
}

// skipName returns the end of a name that may be compressed.
func skipName(msg []byte, at int) int {
	for at < len(msg) && msg[at] != 0 && msg[at] < 0xc0 {
		at += 1 + int(msg[at])
	}
	if at < len(msg) && msg[at] >= 0xc0 {
		at++
	}
	return at + 1
}

// CoreDNS as it is measured.
const coreDNSVersion = "v1.15.0"

const coreDNSMain = `package main

import (
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/file"
)

func main() { coremain.Run() }
`

// coreDNS is where fetchCoreDNS puts the program.
func coreDNS() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	return filepath.Join(cache, "pharos-bench", "coredns-"+coreDNSVersion)
}

// fetchCoreDNS builds CoreDNS with the plug-ins that are measured, in a module of
// its own: ours does not depend on it.
func fetchCoreDNS() error {
	if _, err := os.Stat(coreDNS()); err == nil {
		return nil
	}
	dir, err := os.MkdirTemp("", "pharos-coredns")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(coreDNSMain), 0o644); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"mod", "init", "coredns.test"},
		{"get", "github.com/coredns/coredns@" + coreDNSVersion},
		{"build", "-trimpath", "-o", coreDNS(), "."},
	} {
		cmd := exec.Command("go", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build CoreDNS: go %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}
