package node

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/dnslb/zone"
)

// TestCompiler: a large zone is compiled by a process of its own, which says what is wrong in the
// words of the compiler; where none can be started it is compiled here; one that dies is an error.
func TestCompiler(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	text.WriteString("@ 300 IN SOA ns h 7 2 3 4 60\n@ 300 IN NS ns.elsewhere.net.\n")
	for i := 0; text.Len() < worthAProcess; i++ {
		fmt.Fprintf(&text, "n%d 300 A 10.0.%d.%d\n", i, i>>8&255, i&255)
	}
	large := func(more string) []zone.Spec {
		return []zone.Spec{{Name: "example.com.", Master: text.String() + more, MasterFile: "file", Steered: []zone.Steered{{FQDN: "www.example.com.", Service: "web"}}}}
	}
	node := func(argv ...string) *Node {
		return &Node{opts: Options{Compiler: argv}, log: slog.New(slog.DiscardHandler)}
	}
	child := node(os.Args[0], CompilerVerb)
	set, err := child.compileZones(large(""))
	if err != nil || set.Zones()[0].Serial != 7 || set.Steered() != 1 {
		t.Fatalf("%v, %v", set, err)
	}
	wrong := large("bad A nowhere\n")
	_, want := zone.Compile(wrong)
	if _, err := child.compileZones(wrong); err == nil || err.Error() != want.Error() {
		t.Errorf("got %v, want %v", err, want)
	}
	if set, err := node("/nonexistent/pharos").compileZones(large("")); err != nil || set.Zones()[0].Serial != 7 {
		t.Errorf("no process: %v", err)
	}
	for _, argv := range [][]string{{"false"}, {"sh", "-c", "echo out of luck >&2; exit 3"}, {"sh", "-c", "cat >/dev/null; kill -9 $$"}} {
		_, err := node(argv...).compileZones(large(""))
		if err == nil || !strings.Contains(err.Error(), "process that compiles zones ended") {
			t.Errorf("%v: %v", argv, err)
		} else if strings.Contains(argv[len(argv)-1], "luck") && !strings.Contains(err.Error(), "exit status 3 (out of luck)") {
			t.Errorf("its last words are lost: %v", err)
		}
	}
	if _, err := compileBy([]string{"sh", "-c", "kill -STOP $$"}, 200*time.Millisecond, large("")); err == nil || !strings.HasSuffix(err.Error(), "has not ended within 200ms") {
		t.Errorf("a stopped process: %v", err)
	}
	if _, err := node("false").compileZones([]zone.Spec{{Name: "a.test.", Master: "www 60 A 192.0.2.1\n"}}); err != nil {
		t.Errorf("a small zone needed a process: %v", err)
	}
}

// startsCompiler is the verb of this test binary that starts what it takes for a compiler and waits for it.
const startsCompiler = "starts-compiler"

// TestCompilerEndsWithUs: when the node is killed, nothing that it started computes on.
func TestCompilerEndsWithUs(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pid")
	cmd := exec.Command(os.Args[0], startsCompiler, file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	var pid int
	eventually(t, "it began", func() bool {
		text, _ := os.ReadFile(file)
		_, err := fmt.Sscanf(string(text), "%d\n", &pid)
		return err == nil
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	eventually(t, "its compiler ended", func() bool { // or is a zombie, where nobody asks how it ended
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(text), ") Z ")
	})
}
