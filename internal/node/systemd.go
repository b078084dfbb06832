package node

import (
	"net"
	"os"
)

// notifySystemd tells the service manager, where there is one (sd_notify(3)),
// how far we are. Failing to is harmless: the manager times out and says so.
func notifySystemd(state string) {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return
	}
	defer conn.Close()
	conn.Write([]byte(state)) // see above
}
