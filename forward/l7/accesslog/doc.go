// Package accesslog writes one line for each request to a file, without ever making a
// request wait for the disk.
//
// Lines are put together where the request ends and appended to a buffer of bounded size;
// a goroutine writes it out. When the disk does not keep up, lines are dropped and
// counted. A file that was moved away is opened anew by Reopen.
//
// A line never holds a header that carries a secret (Cookie, Authorization), and a query
// only where that is asked for. Whatever a client sent is escaped: a line is a line.
//
//	log, err := accesslog.Open("/var/log/pharos/access.log", nil)
//	go log.Run(ctx)
//	log.Append(accesslog.JSON, &entry)
package accesslog
