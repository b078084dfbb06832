package node

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/pharos-lb/pharos/bgp"
	"github.com/pharos-lb/pharos/internal/health/probe"
)

// TestMain makes this test binary serve as the children that nodes start.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == SpeakerVerb {
		if err := bgp.ChildMain(context.Background(), os.Stdin, os.Stdout, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 1 && os.Args[1] == KeeperVerb {
		if err := probe.KeeperMain(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 1 && os.Args[1] == CompilerVerb {
		if err := CompilerMain(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 2 && os.Args[1] == startsCompiler {
		_, err := compileBy([]string{"sh", "-c", "echo $$ >" + os.Args[2] + "; exec sleep 600"}, compileWithin, nil)
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// The parallel tests wait more than they compute.
	if err := flag.Set("test.parallel", "4"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}
