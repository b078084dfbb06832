package config_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pharos-lb/pharos/internal/config"
)

// FuzzParse: no input panics; whatever is refused is refused at a place in the
// file, with text that fits a terminal; whatever is accepted keeps every promise
// that Config makes.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/*.yaml", "testdata/good/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Add([]byte(fleet(3)))
	f.Add([]byte("sites: \u2028{a: \u0085\r\r\n? b}"))
	f.Add([]byte("\ufeffsites: {}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := config.Parse("dir/pharos.yaml", data, sources())
		if (cfg == nil) == (err == nil) {
			t.Fatalf("config %v, error %v", cfg, err)
		}
		if err != nil {
			checkErrors(t, err, string(data))
			return
		}
		checkConfig(t, cfg)
		again, err := config.Parse("dir/pharos.yaml", data, sources())
		if err != nil || again.Hash != cfg.Hash {
			t.Fatalf("a second Parse differs: %v", err)
		}
	})
}

// checkErrors checks positions with its own idea of lines.
func checkErrors(t *testing.T, err error, text string) {
	var errs config.Errors
	if !errors.As(err, &errs) || len(errs) == 0 {
		t.Fatalf("error %v is not Errors", err)
	}
	text = strings.ToValidUTF8(strings.TrimPrefix(text, "\ufeff"), "\ufffd")
	lines := strings.Split(strings.NewReplacer("\r\n", "\n", "\r", "\n", "\u0085", "\n", "\u2028", "\n", "\u2029", "\n").Replace(text), "\n")
	for i, e := range errs {
		if e.Line < 1 || e.Line > len(lines) && len(text) < 1<<20 {
			t.Fatalf("%v: line %d of %d", e, e.Line, len(lines))
		}
		if length := utf8.RuneCountInString(lines[e.Line-1]); e.Column < 1 || e.Column > length+1 {
			t.Fatalf("%v: column %d of %d", e, e.Column, length)
		}
		if e.Message == "" || e.File != "dir/pharos.yaml" || strings.ContainsAny(e.Error(), "\n\r\x1b") {
			t.Fatalf("error %q is not one line", e.Error())
		}
		if i > 0 && (errs[i-1].Line > e.Line || errs[i-1].Line == e.Line && errs[i-1].Column > e.Column) {
			t.Fatalf("%v comes after %v", e, errs[i-1])
		}
	}
	if !strings.HasSuffix(errs.Pretty(), "\n") {
		t.Fatal("Pretty does not end its last line")
	}
}

// checkConfig is written from the documentation of Config, not from the code
// that fills it.
func checkConfig(t *testing.T, cfg *config.Config) {
	must := func(ok bool, what string, args ...any) {
		if !ok {
			t.Fatalf("%s: %v\n%+v", what, args, cfg)
		}
	}
	sites, services, networks := map[string]bool{}, map[string]*config.Service{}, map[string]bool{}
	nodes, loopback, signs := map[string]bool{}, true, false
	must(len(cfg.Sites) > 0, "no site")
	for _, s := range cfg.Sites {
		must(!sites[s.Name] && len(s.Nodes) > 0 && !s.Location.Point.IsZero(), "site", s)
		sites[s.Name] = true
		for _, n := range s.Nodes {
			must(!nodes[n.Name] && n.Address.IsValid() && !n.Address.IsUnspecified(), "node", n)
			nodes[n.Name] = true
			must(n.PublicKey == nil || len(n.PublicKey) == 32, "public key", n)
			signs = signs || n.PublicKey != nil
			loopback = loopback && n.Address.IsLoopback()
		}
	}
	must(slices.IsSortedFunc(cfg.Sites, func(a, b config.Site) int { return strings.Compare(a.Name, b.Name) }), "sites are not sorted")
	must(loopback || slices.Contains([]int{16, 24, 32}, len(cfg.Cluster.Key.Reveal())), "gossip in the clear")
	must(len(cfg.Cluster.Keys) <= 16 && (len(cfg.Cluster.Keys) == 0) == !cfg.Cluster.Key.IsSet(), "keys", cfg.Cluster)
	must(len(cfg.Cluster.Keys) == 0 || cfg.Cluster.Keys[0] == cfg.Cluster.Key, "first key", cfg.Cluster)
	must(!signs || cfg.Cluster.SignKeyFile != "", "nothing to sign with", cfg.Cluster)
	must(cfg.Cluster.Port > 0 && cfg.Cluster.Name != "", "cluster", cfg.Cluster)
	for _, n := range cfg.Networks {
		must(!networks[n.Name] && len(n.Prefixes) > 0, "network", n)
		networks[n.Name] = true
		for _, p := range n.Prefixes {
			must(p == p.Masked(), "prefix", p)
		}
	}
	where := func(text string) {
		name, ok := strings.CutPrefix(text, "network:")
		must(!ok || networks[name], "network", text)
	}
	owner := map[netip.Addr]string{}
	for i := range cfg.Services {
		s := &cfg.Services[i]
		must(services[s.Name] == nil, "service twice", s.Name)
		services[s.Name] = s
		checkService(must, s, sites, where, owner)
	}
	names := map[string]config.Name{}
	for _, z := range cfg.Zones {
		must(strings.HasSuffix(z.Name, ".") && z.Name == strings.ToLower(z.Name) && (strings.TrimSpace(z.Master) != "" || len(z.Names) > 0) && (z.Master == "" || z.MasterFile != ""), "zone", z.Name)
		for _, n := range z.Names {
			_, twice := names[n.FQDN]
			must(!twice && (n.FQDN == z.Name || strings.HasSuffix(n.FQDN, "."+z.Name)) && len(n.FQDN) <= 254, "name", n)
			names[n.FQDN] = n
			s := services[n.Service]
			must(s != nil && n.TTL >= time.Second && n.TTL <= 24*time.Hour && n.TTL%time.Second == 0, "name", n)
			must(!n.Anycast || len(s.Anycast) > 0, "anycast name without address", n)
			must(n.Anycast || len(s.VIPs) == len(s.Pools), "steered name without VIPs", n)
		}
	}
	carried := map[string]bool{}
	for _, l := range cfg.Listeners {
		kinds := 0
		for _, there := range []bool{l.TCP != nil, l.UDP != nil, l.HTTP != nil} {
			if there {
				kinds++
			}
		}
		must(kinds == 1 && l.Bind.Port > 0, "listener", l)
		if l.UDP != nil {
			carried[l.UDP.Service] = true
			must(services[l.UDP.Service] != nil && l.UDP.Idle > 0 && l.UDP.Sessions > 0 && l.UDP.Responses >= -1, "listener", l)
			must((l.UDP.GoneAfter > 0) == (l.UDP.BackendGone == "silent" || l.UDP.BackendGone == "drain"), "listener", l)
			continue
		}
		if l.TCP != nil {
			must(services[l.TCP.Service] != nil || l.TCP.Service == "" && len(l.TCP.Routes) > 0, "listener", l)
			must(l.TCP.Idle > 0 && l.TCP.Connect > 0 && l.TCP.Hello > 0 && l.TCP.Backlog > 0, "listener", l)
			carried[l.TCP.Service] = true
			for _, r := range l.TCP.Routes {
				carried[r.Service] = true
				must(services[r.Service] != nil, "route", r)
			}
			continue
		}
		must(len(l.HTTP.Routes) > 0 && l.HTTP.Idle > 0, "listener", l)
		must(l.HTTP.Limits.HeaderBytes >= 256 && l.HTTP.Limits.HeaderFields > 0 && l.HTTP.Limits.URI >= 16 && l.HTTP.Limits.Streams > 0, "limits", l)
		must(l.HTTP.Times.Header > 0 && l.HTTP.Times.Response > 0 && l.HTTP.Times.Write > 0 && l.HTTP.Times.Request >= 0, "times", l)
		must(l.HTTP.AccessLog == nil || l.HTTP.AccessLog.File != "" && l.HTTP.AccessLog.Sample > 0, "access log", l)
		for _, r := range l.HTTP.Routes {
			paths, actions := 0, 0
			for _, p := range []string{r.Path, r.Exact, r.Pattern} {
				if p != "" {
					paths++
				}
			}
			for _, is := range []bool{r.Service != "", r.Split != nil, r.Redirect != nil, r.Respond != nil} {
				if is {
					actions++
				}
			}
			must(paths == 1 && actions == 1 && (r.Pattern != "" || strings.HasPrefix(r.Path+r.Exact, "/")), "route", r)
			for _, s := range r.Services() {
				must(services[s] != nil, "route", r)
			}
			must(r.Limits.Requests >= 0 && r.Limits.Body >= 0, "limits", r)
			must(r.Rewrite == config.Rewrite{} || len(r.Services()) > 0, "rewrite", r)
		}
	}
	for _, s := range services {
		must(s.BackendGone == "" || carried[s.Name], "policy of what nobody carries", s.Name)
		must((s.GoneAfter > 0) == (s.BackendGone == "drain"), "time of drain", s.Name)
	}
	checkBGP(must, cfg.BGP, sites, services)
	must(len(cfg.DNS.Listen) > 0 && cfg.DNS.UDPSize >= 512 && cfg.DNS.TCPMax > 0 && cfg.DNS.TCPIdle > 0, "dns", cfg.DNS)
	must(cfg.Admin.Socket != "" && (cfg.Admin.Listen.Port > 0) == cfg.Admin.Token.IsSet(), "admin", cfg.Admin)
	for _, test := range cfg.Tests {
		where(test.From)
		must(len(test.Expect) > 0 && test.Line > 0 && (test.Type == "A" || test.Type == "AAAA"), "test", test)
		for _, site := range append(slices.Clone(test.Down), test.Expect...) {
			must(sites[site], "site", site)
		}
	}
}

type mustFunc func(ok bool, what string, args ...any)

func checkService(must mustFunc, s *config.Service, sites map[string]bool, where func(string), owner map[netip.Addr]string) {
	here := map[string]bool{}
	must(len(s.Pools) > 0 && len(s.Policy) > 0, "service", s)
	for _, p := range s.Pools {
		must(sites[p.Site] && !here[p.Site] && len(p.Backends) > 0, "pool", p)
		here[p.Site] = true
		seen := map[netip.AddrPort]bool{}
		for _, b := range p.Backends {
			must(b.Address.IsValid() && b.Address.Port() > 0 && !seen[b.Address] && b.Weight >= 1 && b.Weight <= 1000, "backend", b)
			seen[b.Address] = true
		}
	}
	own := func(site string, addrs []netip.Addr) {
		must(len(addrs) <= 8, "addresses", addrs)
		for _, a := range addrs {
			must(a.IsValid() && (owner[a] == "" || owner[a] == site), "address of two sites", a)
			owner[a] = site
		}
	}
	for _, v := range s.VIPs {
		must(here[v.Site] && len(v.Addresses) > 0, "vip", v)
		own(v.Site, v.Addresses)
	}
	own("anycast", s.Anycast)
	kinds := map[config.PolicyKind]bool{}
	for i, p := range s.Policy {
		must(!kinds[p.Kind] && (p.Kind != config.PolicyWeighted || i == len(s.Policy)-1), "policy", p)
		kinds[p.Kind] = true
		must(p.Kind != config.PolicyFailover || len(p.Order) > 0, "failover", p)
		all := slices.Clone(p.Order)
		for _, r := range p.Rules {
			where(r.Where)
			must(len(r.Sites) > 0, "rule", r)
			all = append(all, r.Sites...)
		}
		for _, w := range p.Weights {
			must(w.Weight >= 0 && w.Weight <= 1000, "weight", w)
			all = append(all, w.Site)
		}
		for _, site := range all {
			must(here[site], "site of the policy", site)
		}
	}
	c := s.Check
	must(c.Every >= 100*time.Millisecond && c.Every <= time.Hour && c.Timeout >= 10*time.Millisecond && c.Timeout <= c.Every && c.Timeout <= time.Minute &&
		c.Recheck >= 10*time.Millisecond && c.Recheck <= c.Every && c.Rise >= 1 && c.Fall >= 1 && c.Jitter >= 0 && c.Jitter <= 0.5, "check", c)
	bal := s.Balance
	must((bal.By == "bounded") == (bal.Load > 1) && (bal.Key == "" || bal.By == "maglev" || bal.By == "bounded" || bal.By == "ring"), "balance", bal)
	tr := s.Transport
	secure := tr.Protocol == "https" || tr.Protocol == "h2"
	must(secure == (tr.MinVersion != "") && (secure || tr.SNI+tr.CA+tr.Certificate == "" && !tr.Insecure) && (tr.Certificate == "") == (tr.Key == "") &&
		!(tr.Insecure && tr.CA != "") && tr.Warm >= 0 && tr.Warm <= 256, "transport", tr)
	must(bal.Limit == config.Limit{} || bal.Limit.PerBackend > 0 && bal.Limit.Queue >= 0 && bal.Limit.Wait > 0 && bal.Limit.Rate >= 0 ||
		bal.Limit == config.Limit{Rate: bal.Limit.Rate} && bal.Limit.Rate > 0, "limit", bal)
	must(bal.Eject == config.Eject{} || bal.Eject.For > 0 && bal.Eject.MaxFor >= bal.Eject.For && bal.Eject.Window > 0, "eject", bal)
	must(s.MinSites >= 1 && s.MinSites <= len(s.Pools), "min_sites", s.MinSites)
	must(int(c.From) >= -1 && int(c.From) <= len(sites) && c.VIPFrom >= 0 && int(c.VIPFrom) < max(len(sites), 1)+1, "vantage", c)
	must(c.SlowStart >= 0 && c.SlowStart <= time.Hour, "slow start", c)
	must(c.Flap == config.FlapDamping{} || c.Flap.Limit >= 2 && c.Flap.Limit <= 100 && c.Flap.HalfLife >= time.Second, "flap", c)
	must((c.Passive == config.PassiveCheck{}) && c.Kind != config.CheckPassive || c.Passive.Fall >= 1 && c.Passive.For >= time.Second, "passive", c)
	must(c.Weight.Header == "" || c.Weight.JSON == "", "weight", c)
	must(checkKind(must, c, 0) <= 16, "parts", c)
}

// checkKind checks the part of a check that belongs to its kind, and returns how
// many checks it combines.
func checkKind(must mustFunc, c config.Check, depth int) int {
	must(depth <= 3, "depth", depth)
	switch c.Kind {
	case config.CheckTCP, config.CheckICMP:
	case config.CheckHTTP, config.CheckHTTPS:
		must(len(c.HTTP.Status) > 0 && strings.HasPrefix(c.HTTP.Path, "/") && c.HTTP.Method != "", "http", c)
		must(c.HTTP.Version == 1 || c.HTTP.Version == 2 || c.HTTP.Version == 3 && c.Kind == config.CheckHTTPS, "version", c)
		must(c.HTTP.Method != "HEAD" || c.HTTP.Body == "" && c.HTTP.BodyRegexp == "" && len(c.HTTP.JSON) == 0, "HEAD", c)
		_, err := regexp.Compile(c.HTTP.BodyRegexp)
		must(err == nil, "regexp", err)
		for _, m := range c.HTTP.JSON {
			must(strings.HasPrefix(m.Path, "$") && m.Value != "", "json", m)
		}
	case config.CheckTLS:
		must(c.TLS.MinValid >= 0 && c.TLS.MinValid <= 365*24*time.Hour, "tls", c)
	case config.CheckDNS:
		must(strings.HasSuffix(c.DNS.Name, ".") && c.DNS.Type != "" && c.DNS.RCode != "", "dns", c)
	case config.CheckUDP:
		must(c.UDP.Send != "" && len(c.UDP.Send) <= 1024, "udp", c)
	case config.CheckGRPC:
		must(c.GRPC.TLS || c.GRPC.SNI == "" && !c.GRPC.Insecure, "grpc", c)
	case config.CheckExec:
		must(len(c.Exec.Command) > 0 && filepath.IsAbs(c.Exec.Command[0]), "exec", c)
	case config.CheckFile:
		must(filepath.IsAbs(c.File.Path) && c.File.MaxAge > 0, "file", c)
	case config.CheckPassive:
		must(depth == 0, "passive inside", c)
	case config.CheckAll, config.CheckAny, config.CheckAtLeast:
		parts, weight := len(c.Of), 0
		must(len(c.Of) > 0, "nothing combined", c)
		for _, part := range c.Of {
			must(part.Weight >= 1 && part.Check.Every == 0 && part.Check.Flap.Limit == 0, "part", part)
			parts += checkKind(must, part.Check, depth+1)
			weight += part.Weight
		}
		must((c.Need > 0) == (c.Kind == config.CheckAtLeast) && c.Need <= weight, "need", c)
		return parts
	default:
		must(false, "kind", c.Kind)
	}
	return 0
}

func checkBGP(must mustFunc, bgp config.BGP, sites map[string]bool, services map[string]*config.Service) {
	must(bgp.ASN != 0 || len(bgp.Peers) == 0 && len(bgp.Prefixes) == 0, "no ASN")
	peered := map[string]bool{}
	for _, p := range bgp.Peers {
		must(sites[p.Site] && p.Address.IsValid() && p.ASN != 0 && p.Port != 0 && p.Hold >= 3*time.Second, "peer", p)
		peered[p.Site] = true
	}
	for _, p := range bgp.Prefixes {
		must(p.Prefix.IsValid() && p.Prefix == p.Prefix.Masked() && p.Prefix.Bits() > 0 && len(p.Requires) > 0, "prefix", p)
		for _, s := range p.Requires {
			must(services[s] != nil, "required service", s)
		}
		for _, s := range p.Sites {
			must(peered[s], "announcing site", s)
		}
	}
}
