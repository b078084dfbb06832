//go:debug multipathtcp=0

package bgp

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
)

// childVerb in the environment makes the test binary the child; parentVerb makes it a parent, for tests that kill one;
// routerVerb makes it a router, senderVerb one that sends.
const (
	childVerb  = "PHAROS_BGP_TEST_CHILD"
	parentVerb = "PHAROS_BGP_TEST_PARENT"
	routerVerb = "PHAROS_BGP_TEST_ROUTER"
	senderVerb = "PHAROS_BGP_TEST_SENDER"
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(childVerb) == "1":
		if err := ChildMain(context.Background(), os.Stdin, os.Stdout, os.Stderr); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	case os.Getenv(childVerb) == "broken":
		fmt.Fprintln(os.Stderr, "panic: told to break")
		os.Exit(2)
	case os.Getenv(routerVerb) != "":
		if err := runTestRouter(os.Getenv(routerVerb)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	case os.Getenv(senderVerb) != "":
		if err := runTestSender(os.Getenv(senderVerb)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	case os.Getenv(parentVerb) != "":
		if err := runTestParent(os.Getenv(parentVerb)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// Under the race detector every process of the tests would linger for a second.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		panic(err)
	}
	// The tests wait for timers of BGP far more than they compute.
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
