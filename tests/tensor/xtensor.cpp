#if __has_include(<xtensor/xarray.hpp>)
#include <tesla/tensor/xtensor.hpp>

#include <catch2/catch.hpp>
#include <xtensor/xarray.hpp>
#include <xtensor/xstrided_view.hpp>
#include <xtensor/xtensor.hpp>
#include <xtensor/xview.hpp>

using namespace tesla;

namespace {

/// Whether the view has the values of an expression, in row-major order.
template <class X>
void check(const X& x) {
  const ArrayView view = x;
  REQUIRE(view.shape().rank() == x.dimension());
  for (std::size_t axis = 0; axis < x.dimension(); ++axis) REQUIRE(view.shape()[axis] == x.shape()[axis]);
  std::size_t i = 0;
  for (auto value = x.template begin<xt::layout_type::row_major>();
       value != x.template end<xt::layout_type::row_major>(); ++value, ++i)
    REQUIRE(view.value(i / view.features(), i % view.features()) == static_cast<double>(*value));
  REQUIRE(i == view.size());
}

template <class X>
void fill(X& x) {
  int next = 0;
  for (auto& value : x) value = static_cast<typename X::value_type>(++next);
}

}  // namespace

TEST_CASE("xtensor: arrays and tensors in both orders", "[tensor][xtensor]") {
  xt::xarray<float> array = xt::zeros<float>({4, 3, 2});
  xt::xtensor<double, 2> tensor = xt::zeros<double>({4, 3});
  xt::xarray<float, xt::layout_type::column_major> columns = xt::zeros<float>({4, 3});
  xt::xtensor<int, 3, xt::layout_type::column_major> deep = xt::zeros<int>({2, 3, 4});
  fill(array), fill(tensor), fill(columns), fill(deep);
  check(array);
  check(tensor);
  check(columns);
  check(deep);
  CHECK(ArrayView(array).data() == array.data());
  CHECK(ArrayView(array).contiguous_samples());
  CHECK_FALSE(ArrayView(columns).contiguous_samples());
}

TEST_CASE("xtensor: views and adaptors", "[tensor][xtensor]") {
  xt::xarray<float> array = xt::zeros<float>({6, 5});
  xt::xtensor<float, 2, xt::layout_type::column_major> columns = xt::zeros<float>({6, 5});
  fill(array), fill(columns);
  check(xt::view(array, xt::range(1, 4), xt::all()));
  check(xt::view(array, xt::range(1, 6, 2), xt::range(0, 3)));
  check(xt::view(columns, xt::range(2, 5), xt::range(1, 4)));
  check(xt::view(array, xt::all(), 2));
  check(xt::strided_view(array, {xt::range(1, 4), xt::range(1, 5, 2)}));
  const std::vector<double> memory = {1, 2, 3, 4, 5, 6};
  check(xt::adapt(memory, std::vector<std::size_t>{2, 3}));
}

TEST_CASE("xtensor: tensors as adaptors of their own memory", "[tensor][xtensor]") {
  Tensor<float> t({2, 3}, {1, 2, 3, 4, 5, 6});
  auto adaptor = as_xtensor(t);
  CHECK(adaptor.dimension() == 2);
  CHECK(adaptor(1, 0) == 4);
  adaptor(0, 1) = 9;
  CHECK(t(0, 1) == 9);
  const Tensor<float> constant = t;
  CHECK(as_xtensor(constant)(0, 1) == 9);
}
#endif
