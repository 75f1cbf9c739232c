// What the mutated expressions call. Each operand is evaluated as often as without the switch.

/// The integers of Rust.
pub trait Int: Copy {
    fn up(self) -> Self;
    fn down(self) -> Self;
    fn floor(self, by: Self) -> Self;
    fn ceil(self, by: Self) -> Self;
}

macro_rules! integers {
    ($($t:ty)*) => {$(
        impl Int for $t {
            #[inline(always)]
            fn up(self) -> Self {
                self.wrapping_add(1)
            }
            #[inline(always)]
            fn down(self) -> Self {
                self.saturating_sub(1)
            }
            #[inline(always)]
            fn floor(self, by: Self) -> Self {
                self / by
            }
            #[inline(always)]
            fn ceil(self, by: Self) -> Self {
                self / by + (self % by != 0) as $t
            }
        }
    )*};
}
integers!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize);

macro_rules! comparisons {
    ($($name:ident $is:tt $becomes:tt)*) => {$(
        #[inline]
        pub fn $name<T: PartialOrd + ?Sized>(n: u32, a: &T, b: &T) -> bool {
            if on(n) { a $becomes b } else { a $is b }
        }
    )*};
}
comparisons!(lt < <= le <= < gt > >= ge >= >);

#[inline]
pub fn eq<A: PartialEq<B> + ?Sized, B: ?Sized>(n: u32, a: &A, b: &B) -> bool {
    (a == b) != on(n)
}

#[inline]
pub fn ne<A: PartialEq<B> + ?Sized, B: ?Sized>(n: u32, a: &A, b: &B) -> bool {
    (a != b) != on(n)
}

macro_rules! exchanges {
    ($($name:ident $is:ident $call:ident $other:ident $becomes:ident)*) => {$(
        #[inline]
        pub fn $name<T>(n: u32, a: T, b: T) -> T
        where
            T: core::ops::$is<Output = T> + core::ops::$other<Output = T>,
        {
            if on(n) { core::ops::$other::$becomes(a, b) } else { core::ops::$is::$call(a, b) }
        }
    )*};
}
exchanges!(
    add Add add Sub sub
    sub Sub sub Add add
    bitand BitAnd bitand BitOr bitor
    bitor BitOr bitor BitAnd bitand
);

#[inline]
pub fn div<T: Int>(n: u32, a: T, b: T) -> T {
    if on(n) {
        a.ceil(b)
    } else {
        a.floor(b)
    }
}

#[inline]
pub fn div_ceil<T: Int>(n: u32, a: T, b: T) -> T {
    if on(n) {
        a.floor(b)
    } else {
        a.ceil(b)
    }
}

#[inline]
pub fn min<T: Ord>(n: u32, a: T, b: T) -> T {
    if on(n) {
        a
    } else {
        a.min(b)
    }
}

#[inline]
pub fn max<T: Ord>(n: u32, a: T, b: T) -> T {
    if on(n) {
        a
    } else {
        a.max(b)
    }
}

#[inline]
pub fn up<T: Int>(n: u32, value: T) -> T {
    if on(n) {
        value.up()
    } else {
        value
    }
}

#[inline]
pub fn down<T: Int>(n: u32, value: T) -> T {
    if on(n) {
        value.down()
    } else {
        value
    }
}

#[inline]
pub fn nothing<T: Default>(n: u32, value: T) -> T {
    if on(n) {
        T::default()
    } else {
        value
    }
}

#[inline]
pub fn not(n: u32, value: bool) -> bool {
    value != on(n)
}

#[inline]
pub fn never(n: u32, value: bool) -> bool {
    value && !on(n)
}

#[inline]
pub fn none<T>(n: u32, value: Option<T>) -> Option<T> {
    if on(n) {
        None
    } else {
        value
    }
}

#[inline]
pub fn forgive<E>(n: u32, result: Result<(), E>) -> Result<(), E> {
    if on(n) {
        Ok(())
    } else {
        result
    }
}

#[inline]
pub fn keep<T>(n: u32, value: T) -> Option<T> {
    if on(n) {
        None
    } else {
        Some(value)
    }
}
