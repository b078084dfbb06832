package probe

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pharos-lb/pharos/internal/health"
)

// inNamespace runs f in a network namespace of its own with a loopback interface,
// where the groups may use ping sockets, with CAP_NET_RAW or without. The thread
// that gave rights away ends with it.
func inNamespace(t *testing.T, groups string, raw bool, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a network namespace")
	}
	result := make(chan error)
	go func() {
		defer close(result)
		runtime.LockOSThread() // and never unlock
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = loopbackUp()
		}
		if err == nil {
			err = os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte(groups), 0)
		}
		if err == nil && !raw {
			err = dropRaw()
		}
		if err != nil {
			result <- err
			return
		}
		f()
	}()
	err := <-result
	if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EROFS) {
		t.Skip("namespaces or sysctls cannot be changed here: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// loopbackUp brings up lo in the namespace of this thread.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// dropRaw takes CAP_NET_RAW from this thread for ever.
func dropRaw() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[0].Effective &^= 1 << unix.CAP_NET_RAW
	data[0].Permitted &^= 1 << unix.CAP_NET_RAW
	return unix.Capset(&header, &data[0])
}

// ping is a check of one address, whose port does not matter.
func ping(addr string) Check {
	at := target("127.0.0.1:1")
	at.Addr = netip.AddrPortFrom(netip.MustParseAddr(addr), 0)
	return Check{Target: at, Kind: ICMP, Timeout: 5 * time.Second, Every: 10 * time.Second}.WithDefaults()
}

func TestProbeICMP(t *testing.T) {
	const noRight = "cannot probe: ICMP wants this process's group in the sysctl net.ipv4.ping_group_range, or the capability CAP_NET_RAW"
	for _, tt := range []struct {
		name    string
		groups  string // who may use ping sockets
		raw     bool   // CAP_NET_RAW is there
		wantRaw bool
		want    string
	}{
		{"ping socket", "0 0", false, false, ""},
		{"ping socket first", "0 0", true, false, ""},
		{"raw socket", "1 0", true, true, ""},
		{"neither", "1 0", false, true, noRight},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inNamespace(t, tt.groups, tt.raw, func() {
				for _, addr := range []string{"127.0.0.1", "::1", "::ffff:127.0.0.1"} {
					c := ping(addr)
					if err := c.Validate(); err != nil {
						t.Error(err)
					}
					got := (&prober{}).probe(t.Context(), c)
					if got.Err != tt.want || got.Inconclusive != (tt.want != "") {
						t.Errorf("%s: got %+v, want %q", addr, got, tt.want)
					}
				}
				conn, raw, err := dialICMP(t.Context(), netip.Addr{}, netip.MustParseAddr("127.0.0.1"))
				if raw != tt.wantRaw || (err != nil) != (tt.want != "") {
					t.Errorf("raw socket %v, %v; want %v", raw, err, tt.wantRaw)
				}
				if err == nil {
					conn.Close()
				}
				if got := (&prober{}).probe(t.Context(), ping("192.0.2.1")); tt.want == "" && got.Err != "network unreachable connecting" {
					t.Errorf("no route: %+v", got)
				}
			})
		})
	}
}

// TestProbeICMPSource: the source address is used, and a foreign one says nothing
// about the target.
func TestProbeICMPSource(t *testing.T) {
	for _, groups := range []string{"0 0", "1 0"} {
		inNamespace(t, groups, true, func() {
			for from, want := range map[string]string{
				"127.0.0.9": "", "::1": "",
				"192.0.2.1": "cannot probe: no free local port, or the source address is not on this machine",
			} {
				p := &prober{source: func(health.Target) netip.Addr { return netip.MustParseAddr(from) }}
				if got := p.probe(t.Context(), ping("127.0.0.1")); got.Err != want || got.Inconclusive != (want != "") {
					t.Errorf("groups %s, from %s: got %+v, want %q", groups, from, got, want)
				}
			}
			conn, _, err := dialICMP(t.Context(), netip.MustParseAddr("127.0.0.9"), netip.MustParseAddr("127.0.0.1"))
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			if host := strings.TrimSuffix(conn.LocalAddr().String(), ":0"); !strings.HasPrefix(host, "127.0.0.9") {
				t.Errorf("comes from %s", conn.LocalAddr())
			}
		})
	}
}

// TestEcho: replies to others, and things that are no reply, do not count; the one
// to us does.
func TestEcho(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(reply []byte)
		want bool
	}{
		{"the reply", func([]byte) {}, true},
		{"a request", func(b []byte) { b[0] = 8 }, false},
		{"another id", func(b []byte) { b[4]++ }, false},
		{"another sequence number", func(b []byte) { b[7]++ }, false},
		{"another token", func(b []byte) { b[20]++ }, false},
	} {
		conn := &wire{replies: make(chan []byte, 2), edit: tt.edit}
		at, err := echo(conn, true, true)
		if (err == nil) != tt.want || at != answering {
			t.Errorf("%s: got %v %s", tt.name, err, at)
		}
	}
}

// wire is a connection to a target that answers one echo request, edited.
type wire struct {
	net.Conn
	replies chan []byte
	edit    func([]byte)
}

func (w *wire) Write(b []byte) (int, error) {
	reply := append([]byte(nil), b...)
	reply[0] = 0
	w.edit(reply)
	w.replies <- reply
	close(w.replies)
	return len(b), nil
}

func (w *wire) ReadFrom(b []byte) (int, net.Addr, error) {
	reply, ok := <-w.replies
	if !ok {
		return 0, nil, os.ErrDeadlineExceeded
	}
	return copy(b, reply), nil, nil
}

func (w *wire) WriteTo([]byte, net.Addr) (int, error) { return 0, errors.ErrUnsupported }
