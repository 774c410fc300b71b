/* What other headers may define before nibkv's are included: X11/Xlib.h (XCSoar/XCSoar#3151),
 * windows.h, curses.h, AssertMacros.h, complex.h. */
#define Status int
#define Bool int
#define None 0L
#define True 1
#define False 0
#define Success 0
#define Always 2
#define Complex 0
#define KeyPress 2
#define min(a, b) (((a) < (b)) ? (a) : (b))
#define max(a, b) (((a) > (b)) ? (a) : (b))
#define near
#define far
#define small char
#define interface struct
#define IN
#define OUT
#define ERROR 0
#define DELETE 1
#define clear() wclear(stdscr)
#define check(assertion)
#define OK 0
#define ERR (-1)
#define TRUE 1
#define FALSE 0
#define I 1
