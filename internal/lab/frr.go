package lab

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// frrConfig writes the configuration of a router that is FRR.
func frrConfig(r RouterPlan) string {
	var b strings.Builder
	fmt.Fprintf(&b, `frr defaults traditional
hostname %s
router bgp %d
 bgp router-id %s
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 bgp bestpath as-path multipath-relax
`, r.Name, r.ASN, r.ID)
	for _, s := range r.Sessions {
		fmt.Fprintf(&b, " neighbor %[1]s remote-as %[2]d\n neighbor %[1]s timers connect 2\n neighbor %[1]s advertisement-interval 0\n", s.Remote, s.ASN)
		// All links to nodes have one address at this end; BFD has to know which is meant.
		fmt.Fprintf(&b, " neighbor %s update-source %s\n", s.Remote, s.Link)
		if s.NodePort != bgpPort {
			fmt.Fprintf(&b, " neighbor %s port %d\n", s.Remote, s.NodePort)
		}
		if password := s.Peer.Password.Reveal(); password != "" {
			fmt.Fprintf(&b, " neighbor %s password %s\n", s.Remote, password)
		}
		if bfd := s.bfd(); bfd.Interval > 0 {
			ms := max(bfd.Interval.Milliseconds(), frrLeastBFD)
			fmt.Fprintf(&b, " neighbor %s bfd %d %d %d\n", s.Remote, bfd.Multiplier, ms, ms)
		}
		if s.Peer.TTLSecurity > 0 {
			fmt.Fprintf(&b, " neighbor %s ttl-security hops %d\n", s.Remote, s.Peer.TTLSecurity)
		}
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		fmt.Fprintf(&b, " address-family %s unicast\n  maximum-paths 16\n  maximum-paths ibgp 16\n", family)
		for _, s := range r.Sessions {
			in, out := "all", "none" // a node's routes go on to the transit, and nothing to a node
			if !s.Node {
				in, out = "none", "all"
			}
			fmt.Fprintf(&b, "  neighbor %[1]s activate\n  neighbor %[1]s route-map %[2]s in\n  neighbor %[1]s route-map %[3]s out\n", s.Remote, in, out)
		}
		b.WriteString(" exit-address-family\n")
	}
	b.WriteString("exit\nroute-map all permit 10\nexit\nroute-map none deny 10\nexit\n")
	return b.String()
}

// frrLeastBFD is FRR's shortest interval of BFD, in milliseconds.
const frrLeastBFD = 50

// startFRR starts zebra and bgpd and has vtysh load the configuration.
func (r *router) startFRR() error {
	if err := r.giveToFRR(); err != nil {
		return err
	}
	port := strconv.Itoa(bgpPort)
	for _, s := range r.plan.Sessions {
		if s.Node {
			port = strconv.Itoa(int(s.Peer.Port))
		}
	}
	programs := []string{"zebra", "bgpd"}
	if slices.ContainsFunc(r.plan.Sessions, func(s SessionPlan) bool { return s.bfd().Interval > 0 }) {
		programs = []string{"zebra", "bfdd", "bgpd"}
	}
	for _, program := range programs {
		args := []string{
			"-N", filepath.Base(r.dir), "-f", "/dev/null", "-i", filepath.Join(r.vty(), program+".pid"), "--vty_socket", r.vty(),
			"-z", filepath.Join(r.vty(), "zserv.api"), "--log", "stdout",
		}
		switch program {
		case "bgpd":
			args = append(args, "-p", port)
		case "bfdd":
			args = append(args, "--bfdctl", filepath.Join(r.vty(), "bfdd.sock"))
		}
		if err := r.run(program, "frr", args...); err != nil {
			return err
		}
		if err := r.awaitFile(filepath.Join(r.vty(), program+".vty")); err != nil {
			return err
		}
	}
	file := filepath.Join(r.dir, "frr.conf")
	if err := os.WriteFile(file, []byte(frrConfig(r.plan)), 0o600); err != nil {
		return err
	}
	vtysh, err := findRouterTool("vtysh", "frr")
	if err != nil {
		return err
	}
	out, err := exec.Command(vtysh, "--vty_socket", r.vty(), "-f", file).CombinedOutput()
	if err != nil || strings.Contains(string(out), "%") {
		return fmt.Errorf("vtysh: %v: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// vty is the folder of FRR's sockets. It is not in the lab's folder, which only root
// may enter: FRR's programs become another user. Its names must be short.
func (r *router) vty() string {
	return filepath.Join(os.TempDir(), filepath.Base(filepath.Dir(r.dir))+"-"+r.plan.Name)
}

// giveToFRR makes that folder.
func (r *router) giveToFRR() error {
	u, err := user.Lookup("frr")
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(r.vty()); err != nil { // of a lab that was killed
		return err
	}
	if err := os.Mkdir(r.vty(), 0o750); err != nil {
		return err
	}
	return os.Chown(r.vty(), uid, gid)
}

// fileWithin bounds how long a program may take to open its socket.
const fileWithin = 10 * time.Second

// awaitFile waits for a file that a program of the router makes.
func (r *router) awaitFile(name string) error {
	for deadline := time.Now().Add(fileWithin); ; time.Sleep(10 * time.Millisecond) { // another process: nothing to wait on
		if _, err := os.Stat(name); err == nil {
			return nil
		}
		if err := r.alive(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no %s after %s", name, fileWithin)
		}
	}
}
