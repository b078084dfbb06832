package bed

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A BIRD is a running BIRD 2.
type BIRD struct {
	t      testing.TB
	ns     *Namespace
	socket string
	log    string
	birdc  string
	daemon *daemon
}

// BIRD starts BIRD with a configuration.
func (ns *Namespace) BIRD(config string) *BIRD {
	t := ns.bed.t
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "bird.conf")
	write(t, file, config)
	b := &BIRD{
		t: t, ns: ns, socket: filepath.Join(dir, "bird.ctl"), log: filepath.Join(dir, "log"),
		birdc: need(t, "birdc", "bird2"),
	}
	b.daemon = ns.start(b.log, need(t, "bird", "bird2"), "-f", "-c", file, "-s", b.socket, "-P", filepath.Join(dir, "pid"))
	Await(t, "BIRD to start: "+read(b.log), func() bool {
		select {
		case <-b.daemon.done:
			t.Fatalf("BIRD ended:\n%s", read(b.log))
		default:
		}
		return exec.Command(b.birdc, "-s", b.socket, "show", "status").Run() == nil
	})
	return b
}

// Birdc asks BIRD something.
func (b *BIRD) Birdc(question string) string {
	return ask(append([]string{b.birdc, "-s", b.socket}, strings.Fields(question)...)...)
}

// Log returns what BIRD said.
func (b *BIRD) Log() string { return read(b.log) }

// Signal sends BIRD a signal: SIGSTOP makes it hang.
func (b *BIRD) Signal(sig syscall.Signal) { b.daemon.signal(sig) }

// CheckBIRD returns what BIRD says of a configuration's syntax, and nil when it is right.
func CheckBIRD(t testing.TB, config string) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bird.conf")
	write(t, file, config)
	out, err := exec.Command(need(t, "bird", "bird2"), "-p", "-c", file).CombinedOutput()
	return string(out), err
}

// An FRR is a running zebra, bfdd and bgpd.
type FRR struct {
	t       testing.TB
	ns      *Namespace
	dir     string
	daemons map[string]*daemon
}

// FRR starts FRR and has vtysh load a configuration, as its own scripts do. Its routes stay in FRR.
func (ns *Namespace) FRR(config string) *FRR { return ns.frr(config, "-n") }

// ForwardingFRR is FRR whose routes go into the machine's own table.
func (ns *Namespace) ForwardingFRR(config string) *FRR { return ns.frr(config) }

func (ns *Namespace) frr(config string, flags ...string) *FRR {
	t := ns.bed.t
	t.Helper()
	dir := t.TempDir()
	open(t, dir)
	f := &FRR{t: t, ns: ns, dir: dir, daemons: map[string]*daemon{}}
	for _, name := range []string{"zebra", "bfdd", "bgpd"} {
		args := []string{
			need(t, name, "frr"), "-N", ns.Name, "-f", "/dev/null", "-i", filepath.Join(dir, name+".pid"),
			"--vty_socket", dir, "-z", filepath.Join(dir, "zserv.api"), "--log", "stdout",
		}
		switch name {
		case "bfdd":
			args = append(args, "--bfdctl", filepath.Join(dir, "bfdd.sock"))
		case "bgpd":
			args = append(args, flags...)
		}
		f.daemons[name] = ns.start(filepath.Join(dir, name+".log"), args...)
		Await(t, name+" to start", func() bool {
			select {
			case <-f.daemons[name].done:
				t.Fatalf("%s ended:\n%s", name, f.Log())
			default:
			}
			_, err := os.Stat(filepath.Join(dir, name+".vty"))
			return err == nil
		})
	}
	f.Load(config)
	return f
}

// Load has vtysh put lines of configuration in force; a line that FRR does not know ends the test.
func (f *FRR) Load(config string) {
	f.t.Helper()
	file := filepath.Join(f.dir, "load.conf")
	write(f.t, file, config)
	out, err := exec.Command(need(f.t, "vtysh", "frr"), "--vty_socket", f.dir, "-f", file).CombinedOutput()
	if err != nil || strings.Contains(string(out), "%") {
		f.t.Fatalf("FRR refuses its configuration: %v\n%s\n%s", err, out, config)
	}
}

// Vtysh asks FRR something.
func (f *FRR) Vtysh(question string) string {
	return ask(need(f.t, "vtysh", "frr"), "--vty_socket", f.dir, "-c", question)
}

// JSON asks FRR something that it answers with JSON.
func (f *FRR) JSON(question string, into any) error {
	return json.Unmarshal([]byte(f.Vtysh(question+" json")), into)
}

// Log returns what the daemons said.
func (f *FRR) Log() string {
	var b strings.Builder
	for name := range f.daemons {
		b.WriteString(read(filepath.Join(f.dir, name+".log")))
	}
	return b.String()
}

// Signal sends all daemons a signal: SIGSTOP makes the router hang.
func (f *FRR) Signal(sig syscall.Signal) {
	for _, d := range f.daemons {
		d.signal(sig)
	}
}

// CheckFRR returns what vtysh says of a configuration's syntax, and nil when it is right. vtysh -C alone does not know
// whether the lines of a file would be accepted, so that they go through its dry run one by one.
func CheckFRR(t testing.TB, config string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "frr.conf")
	write(t, file, config)
	out, err := exec.Command(need(t, "vtysh", "frr"), "-C", "-f", file).CombinedOutput()
	return string(out), err
}

// ask runs a command that a router which hangs would never answer.
func ask(args ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), patience/10)
	defer cancel()
	out, _ := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	return string(out)
}

func write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// open lets the user that FRR's daemons become use a folder.
func open(t testing.TB, dir string) {
	t.Helper()
	// The folder above, of all temporary folders of the test, is closed, too.
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
}

func read(file string) string {
	b, _ := os.ReadFile(file)
	return string(b)
}
