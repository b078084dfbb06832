package bgp

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/pharos-lb/pharos/bgp/internal/engine"
)

// hint says what is likely wrong with a session that is not up, for a person who looks at it.
func hint(c Config, p Peer, s PeerStatus, md5 md5Watch) string {
	last := strings.ToLower(s.LastError)
	has := func(texts ...string) bool {
		for _, t := range texts {
			if strings.Contains(last, t) {
				return true
			}
		}
		return false
	}
	switch {
	case s.State == "established" && p.Address.Is4() && !s.IPv4 || s.State == "established" && !s.IPv4 && !s.IPv6:
		return "the router takes no IPv4 unicast on this session: activate the address family there"
	case s.State == "established" || s.State == "quarantined" || s.State == "down":
		return ""
	case has("as number mismatch"):
		return "the AS number configured here is not the one that it has: " + s.LastError
	case has("bad peer as"):
		return fmt.Sprintf("the AS numbers disagree: here AS%d is expected from it and AS%d is said to it", p.ASN, c.ASN)
	case s.LastError == engine.RefusedOpen:
		return fmt.Sprintf("most likely it expects another AS number than AS%d of %s; `pharos doctor` asks it", c.ASN, p.LocalAddress)
	case has("bad bgp identifier"):
		return fmt.Sprintf("both sides have the router ID %s", c.RouterID)
	case has("unacceptable hold time"):
		return fmt.Sprintf("it does not take a hold time of %s: change `hold`", p.Hold)
	case has("maximum number of prefixes"):
		return "its limit on prefixes is reached: raise maximum-prefix there"
	case has("administrative shutdown", "administrative reset", "administratively"):
		return "somebody shut the session down on the router"
	case has("connection rejected", "peer de-configured", "unknown"):
		return fmt.Sprintf("the router does not know us: it needs a neighbor %s with AS%d", p.LocalAddress, c.ASN)
	case has("connection refused"):
		return fmt.Sprintf("nothing listens on port %d of %s: is its BGP up, and is that its address?", p.Port, p.Address)
	case has("no route to host", "network is unreachable"):
		return fmt.Sprintf("%s is not reachable from %s: check the link, the address and its network", p.Address, p.LocalAddress)
	case has("malformed", "unknown message"):
		return "what it sends is no proper BGP: is there a router at that address and port?"
	case has("cannot assign requested address"):
		return fmt.Sprintf("this machine does not have the address %s", p.LocalAddress)
	}
	return quietHint(p, s, last, md5)
}

// quietHint is for sessions that end without a word.
func quietHint(p Peer, s PeerStatus, last string, md5 md5Watch) string {
	timeout := strings.Contains(last, "timeout") || strings.Contains(last, "deadline")
	switch {
	case p.Password != "" && md5.recent(md5Failure):
		return "the passwords likely differ: the kernel drops segments whose TCP MD5 signature is wrong"
	case p.Password != "" && md5.recent(md5NotFound):
		return "the router likely has no password: the kernel drops segments without the TCP MD5 signature that is expected"
	case p.Password == "" && md5.recent(md5Unexpected):
		return "the router likely has a password and this peer has none: segments come with a TCP MD5 signature"
	case timeout && p.Password != "":
		return "it does not answer: most likely its password is another, or a firewall drops TCP port " + strconv.Itoa(int(p.Port))
	case timeout && p.TTLSecurity > 0:
		return fmt.Sprintf("it does not answer: it may be further away than %d hops, or its TTL security is not set alike", p.TTLSecurity)
	case timeout:
		return "it does not answer: its password may be set there and not here, or a firewall drops TCP port " + strconv.Itoa(int(p.Port))
	case strings.Contains(last, "hold timer expired"):
		return "the link is up, but nothing came for the hold time: check the router's load and the path"
	case strings.Contains(last, "connection closed") && (p.Multihop == 0 && p.TTLSecurity == 0):
		return "it closed the connection without a reason: it may not know our address, or be more than one hop away (`multihop`)"
	case p.Passive && s.LastError == "":
		return "waiting for the router to connect"
	}
	return ""
}

// The kernel's counters of dropped TCP MD5 segments, of all sockets of the machine.
const (
	md5NotFound   = iota // without a signature although a key is set
	md5Unexpected        // with one although none is
	md5Failure           // with a wrong one
	md5Counters
)

var md5Names = [md5Counters]string{"TCPMD5NotFound", "TCPMD5Unexpected", "TCPMD5Failure"}

// recentDrop is how long after a drop it may explain a session that is down.
const recentDrop = time.Minute

// A md5Watch remembers when each counter last rose.
type md5Watch struct {
	value [md5Counters]uint64
	rose  [md5Counters]time.Time
	read  time.Time
}

func (w md5Watch) recent(counter int) bool { return time.Since(w.rose[counter]) < recentDrop }

// look reads the counters.
func (w *md5Watch) look(now time.Time) {
	text, err := os.ReadFile("/proc/net/netstat")
	if err != nil {
		return
	}
	first := w.read.IsZero()
	w.read = now
	for i, v := range readMD5(text) {
		if v > w.value[i] && !first {
			w.rose[i] = now
		}
		w.value[i] = v
	}
}

// readMD5 finds the counters in the kernel's table: a line of names, then one of values.
func readMD5(text []byte) (out [md5Counters]uint64) {
	var names [][]byte
	for line := range bytes.Lines(text) {
		fields := bytes.Fields(line)
		if len(fields) == 0 || string(fields[0]) != "TcpExt:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, name := range names {
			for k, want := range md5Names {
				if string(name) == want && i < len(fields) {
					out[k], _ = strconv.ParseUint(string(fields[i]), 10, 64)
				}
			}
		}
		return out
	}
	return out
}
